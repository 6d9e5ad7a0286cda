"""The service: HTTP in front, the engine in its own process behind. Only `app.engine` may import torch."""
