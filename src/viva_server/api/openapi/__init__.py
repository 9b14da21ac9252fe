"""OpenAPI 3.1 of all routes, made from the types that check and shape their JSON."""
