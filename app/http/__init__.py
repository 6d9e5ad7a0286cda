"""What all routes share: middleware, the one error shape, server-sent events."""
