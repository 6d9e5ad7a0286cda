"""How much of a reference a written answer has: exact match and token F1 as SQuAD counts them, ROUGE-L."""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower case, without punctuation, articles and extra blanks (Rajpurkar et al., 2016)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, reference: str) -> bool:
    """Whether both are the same once normalised."""
    return normalize_answer(answer) == normalize_answer(reference)


def token_f1(answer: str, reference: str) -> float:
    """F1 of the normalised words, as often as they occur; where one side has none, 1 if neither has any, else 0."""
    said, wanted = normalize_answer(answer).split(), normalize_answer(reference).split()
    if not said or not wanted:
        return float(said == wanted)
    return _f1(sum((Counter(said) & Counter(wanted)).values()), len(said), len(wanted))


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence of words (Lin, 2004): lower case, letters a to z and digits, no stemming, as the
    rouge-score package cuts them; 0 where one side has no word."""
    said, wanted = (re.findall("[a-z0-9]+", text.lower()) for text in (answer, reference))
    return _f1(common_subsequence(said, wanted), len(said), len(wanted))


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest sequence of words that both have in their order."""
    row = [0] * (len(b) + 1)  # row[j]: the longest of a's words so far and b's first j
    for word in a:
        diagonal = 0
        for j, other in enumerate(b, 1):
            diagonal, row[j] = row[j], diagonal + 1 if word == other else max(row[j], row[j - 1])
    return row[-1]


def _f1(common: int, said: int, wanted: int) -> float:
    return 2 * common / (said + wanted) if common else 0.0
