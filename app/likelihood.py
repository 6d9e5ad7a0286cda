"""Classification by a language model that was never trained for it: which label it finds likeliest behind a text.

With no examples in front (zero-shot) or a few (few-shot; Brown et al., 2020). A label counts by the mean log-probability of its
tokens, so that a long one doesn't lose by its length. A model likes some labels whatever the text: contextual calibration (Zhao et
al., 2021) divides each label's probability by what it gets behind texts that say nothing.
"""

import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from model.errors import ContextLengthError
from model.tokenizer import Tokenizer

TEXT_PLACE, LABEL_PLACE = "{text}", "{label}"
DEFAULT_TEMPLATE = f"Text: {TEXT_PLACE}\nLabel: {LABEL_PLACE}"
CONTENT_FREE = ("N/A", "", "[MASK]")

_BETWEEN = "\n\n"
_LEAST_TEXT = 8  # tokens of a text below which a prompt makes no sense
_LEAST_LOGPROB = -1e4  # for minus infinity, with which means can't be taken
_LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class Continuation:
    """Token ids of a prompt and of a label behind it, at least one each. (Labels share the prompt's list, texts the label's.)"""

    prompt: list[int]
    label: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.label)


@dataclass(frozen=True)
class Question:
    """A text as the model is asked about it, once for each label. `truncated`: the text has lost its end."""

    continuations: list[Continuation]
    truncated: bool

    @property
    def n_tokens(self) -> int:
        """Different tokens that the model has to read: the prompt once, and all labels."""
        return min(len(each.prompt) for each in self.continuations) + sum(
            len(each.label) for each in self.continuations
        )


class Prompter:
    """Makes questions of texts: the same template, examples and labels for all of them. Nothing written in any of them becomes a
    special token, and braces in a text are only text."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        labels: Sequence[str],
        *,
        context: int,
        template: str = DEFAULT_TEMPLATE,
        examples: Sequence[tuple[str, str]] = (),
    ) -> None:
        """`template` has "{text}" once and ends in "{label}"; `examples` are (text, label) pairs. ContextLengthError when all this
        leaves no room for a text in `context` tokens."""
        before, after = template.removesuffix(LABEL_PLACE).split(TEXT_PLACE)
        shown = "".join(f"{before}{text.strip()}{after}{label}{_BETWEEN}" for text, label in examples)
        self._front, self._after = shown + before, after
        self._tokenizer, self._labels, self._context = tokenizer, labels, context
        bos = tokenizer.bos_token_id
        self._begin = [bos] if tokenizer.add_bos and bos is not None else []
        self._suffixes = [self._suffix(label) for label in labels]
        around = max(map(len, self._continuations("")))
        self._room = context - around
        if self._room < _LEAST_TEXT:
            raise ContextLengthError(
                f"This model's maximum context length is {context} tokens; template, examples and the longest label have "
                f"{around} of them, which leaves no room for a text. Give fewer or shorter examples.",
                around,
                context,
            )

    def question(self, text: str) -> Question:
        """The question about a text; blanks around it don't count. What doesn't fit the context is cut from its end."""
        text = text.strip()
        ids = self._tokenizer.encode(text)
        kept = min(len(ids), self._room)
        while True:
            shown = text if kept == len(ids) else self._tokenizer.decode(ids[:kept]).rstrip("\ufffd")
            continuations = self._continuations(shown)
            # Tokens can come out a little differently beside others than alone, so what was cut may still be too long.
            excess = max(map(len, continuations)) - self._context
            if excess <= 0:
                return Question(continuations, kept < len(ids))
            kept = max(kept - excess, 0)

    def _continuations(self, text: str) -> list[Continuation]:
        prompt = self._front + text + self._after
        stem = prompt.rstrip()
        begin = self._begin if stem or self._begin else [self._start_token()]
        head = [*begin, *self._tokenizer.encode(stem)]
        made = []
        for label, suffix in zip(self._labels, self._suffixes, strict=True):
            if suffix is not None:
                made.append(Continuation(head, suffix))
                continue
            ids = [*begin, *self._tokenizer.encode(prompt + label)]
            if len(ids) == 1:  # all of it merged
                ids = [self._start_token(), *ids]
            cut = min(len(head), len(ids) - 1)  # the last token is the label's, merged or not
            made.append(Continuation(ids[:cut], ids[cut:]))
        return made

    def _suffix(self, label: str) -> list[int] | None:
        """The label's tokens, with the blanks in front of it, as they come behind any text; None where they would merge with
        what is before them, so that each text needs a look of its own."""
        stem = self._tokenizer.encode(self._after.rstrip())
        whole = self._tokenizer.encode(self._after + label)
        clean = stem and len(whole) > len(stem) and whole[: len(stem)] == stem
        return whole[len(stem) :] if clean else None

    def _start_token(self) -> int:
        """What a text begins behind: BOS, else the end of the text before it, else token 0."""
        tokenizer = self._tokenizer
        begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        return 0 if begin is None else begin


def mean_logprob(logprobs: Sequence[float]) -> float:
    """Of a label's tokens, at least one."""
    return math.fsum(max(value, _LEAST_LOGPROB) for value in logprobs) / len(logprobs)


def softmax(scores: Sequence[float]) -> list[float]:
    """Probabilities that sum to 1."""
    most = max(scores)
    weights = [math.exp(score - most) for score in scores]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def content_free_bias(answers: Sequence[Sequence[float]]) -> list[float]:
    """What a model thinks of the labels behind texts that say nothing: the logarithm of each label's mean probability. `answers`:
    for each such text the labels' mean log-probabilities."""
    columns = zip(*map(softmax, answers), strict=True)
    return [math.log(max(math.fsum(column) / len(answers), _LEAST_PROBABILITY)) for column in columns]


def calibrated(means: Sequence[float], bias: Sequence[float]) -> list[float]:
    """The labels' probabilities [C] from their mean log-probabilities behind a text, each divided by what it gets behind
    texts that say nothing."""
    return softmax([mean - each for mean, each in zip(means, bias, strict=True)])


class BiasCache:
    """What was found out about labels, template and examples before, so that it isn't computed for every request."""

    def __init__(self, size: int = 256) -> None:
        self._size = size
        self._known: OrderedDict[bytes, list[float]] = OrderedDict()

    @staticmethod
    def key(labels: Sequence[str], template: str, examples: Sequence[tuple[str, str]]) -> bytes:
        """A short name for the three."""
        return hashlib.sha256(json.dumps([labels, template, examples]).encode()).digest()

    def get(self, key: bytes) -> list[float] | None:
        """The bias, if it is known."""
        if key in self._known:
            self._known.move_to_end(key)
        return self._known.get(key)

    def put(self, key: bytes, bias: list[float]) -> None:
        """Keep a bias; the one not asked for the longest goes when there are too many."""
        self._known[key] = bias
        self._known.move_to_end(key)
        if len(self._known) > self._size:
            self._known.popitem(last=False)
