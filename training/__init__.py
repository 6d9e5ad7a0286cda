"""Offline: text in, checkpoints out. Imports `model`, never `app`."""
