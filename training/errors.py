"""What can go wrong in training, for a person to read."""

from model.errors import HomegrownError


class DataError(HomegrownError):
    """A corpus or shard that can't be used; names the file, and the row where there is one."""


class TrainingError(HomegrownError):
    """A run that can't go on: names the step and what stays valid."""
