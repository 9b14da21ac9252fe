"""From the JSON that Evolution delivers to the normal form; no I/O."""
