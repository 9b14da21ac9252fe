"""What the server is measured against: how this is usually built, done right."""
