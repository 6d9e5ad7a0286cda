"""Continuous batching. Knows no HTTP. The rest of `app` uses `app.engine.client` and `app.engine.messages` only."""
