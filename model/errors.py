"""Errors meant for a person: one clear line that names the field or file and says what to do."""


class HomegrownError(Exception):
    """Base of every error that a user can cause and mend. The commands print its text, no traceback, and exit with
    1."""


class ConfigError(HomegrownError):
    """A setting, a preset or a model configuration that can't be used."""


class CheckpointError(HomegrownError):
    """A model directory or a weights file that is missing, damaged or of an unknown kind."""


class TokenizerError(HomegrownError):
    """A vocabulary or a `tokenizer.json` that can't be used."""


class SamplingError(HomegrownError):
    """A sampling parameter out of its range; `param` is its name."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class ContextLengthError(HomegrownError):
    """A prompt (with the tokens asked for) that doesn't fit the model's context; raised before a tensor is touched."""

    def __init__(self, message: str, n_prompt_tokens: int, n_ctx: int) -> None:
        super().__init__(message)
        self.n_prompt_tokens = n_prompt_tokens
        self.n_ctx = n_ctx
