"""The HTTP edge: routes, handlers, and the JSON that goes over the wire."""
