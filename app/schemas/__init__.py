"""Request and response bodies: every field, default, limit and description."""
