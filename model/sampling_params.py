"""What a request may ask of the sampler. Free of torch: the HTTP process checks requests with it.

The ranges are those of OpenAI's API where it has the parameter, else vLLM's; but that repetition_penalty, any positive number
there, is bounded so that no logit overflows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from model.errors import SamplingError

_MASK64 = (1 << 64) - 1
INT32_MAX = 2**31 - 1  # the largest top_k and min_tokens


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is drawn from the logits.

    `temperature` 0 is greedy whatever else is set. `top_k` 0 and `top_p` 1 are off. `seed` None lets the caller draw
    one. `logit_bias` maps a token id to a number in [-100, 100] added to its logit; -100 bans the token, 100 forces
    it. Until `min_tokens` tokens are out, neither an end-of-text token nor one of `stop_token_ids` can be drawn.
    Raises SamplingError, which names the parameter.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    min_tokens: int = 0
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0.0 <= self.temperature <= 2.0, "from 0 to 2")
        _check("top_p", self.top_p, 0.0 < self.top_p <= 1.0, "over 0 and at most 1")
        for name in ("top_k", "min_tokens"):
            value = getattr(self, name)
            _check(name, value, _is_whole(value) and 0 <= value <= INT32_MAX, f"a whole number from 0 to {INT32_MAX}")
        _check("min_p", self.min_p, 0.0 <= self.min_p <= 1.0, "from 0 to 1")
        for name in ("presence_penalty", "frequency_penalty"):
            _check(name, getattr(self, name), -2.0 <= getattr(self, name) <= 2.0, "from -2 to 2")
        _check(
            "repetition_penalty", self.repetition_penalty, 1e-3 <= self.repetition_penalty <= 1e3, "from 0.001 to 1000"
        )
        if self.seed is not None:
            whole = _is_whole(self.seed) and -(2**63) <= self.seed < 2**63
            _check("seed", self.seed, whole, "a 64-bit integer")
        for token in self.stop_token_ids:
            _check("stop_token_ids", token, _is_whole(token), "whole numbers")
        for token, bias in self.logit_bias.items():
            ok = _is_whole(token) and token >= 0 and -100.0 <= bias <= 100.0
            _check("logit_bias", bias, ok, "token ids with values from -100 to 100")

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken, without a draw."""
        return self.temperature == 0.0


def derive_seed(seed: int, index: int) -> int:
    """The seed of choice `index` of a request with n > 1: choice 0 keeps `seed`, the others differ, reproducibly."""
    return seed if index == 0 else mix64((seed & _MASK64) + mix64(index)) >> 1


def mix64(value: int) -> int:
    """The finaliser of SplitMix64 (Steele et al., 2014): a 64-bit integer to a well-mixed one."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)


def uniform(seed: int, step: int) -> float:
    """A number in [0, 1), a pure function of the request's seed and the number of tokens it has drawn so far.

    So a request's random stream is its own: what else runs, where it runs, and how it was resumed change nothing.
    """
    return (mix64(mix64(seed & _MASK64) ^ (step & _MASK64)) >> 11) * 2.0**-53


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check(param: str, value: object, ok: bool, expected: str) -> None:
    if not ok:  # also refuses NaN, for which every comparison above is false
        raise SamplingError(f"{param} must be {expected}, not {value!r}", param)
