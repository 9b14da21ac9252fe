"""From a chat's rows to a turn, and from its reply to the phone."""
