"""The bundled models, from texts to checkpoints/ and docs/models.md: one course of steps, `python -m training.models`."""
