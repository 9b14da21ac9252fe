"""Speed of the server beside its peers, measured in one run on one machine."""
