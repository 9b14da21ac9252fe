"""The commands of `viva-server` that are more than a few lines, one module each."""
