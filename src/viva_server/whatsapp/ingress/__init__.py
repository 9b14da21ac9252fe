"""From the request of a webhook to its committed row."""
