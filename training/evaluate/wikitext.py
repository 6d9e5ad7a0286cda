"""WikiText-2 (Merity et al., 2016): the tokenised file that language-model papers report on, under both conventions in use.

The file is text that was cut into words: "( 1 @.@ 5 m )", `<unk>` for rare words, " = Title = " for headings. Models of other
tokens read it either with the cutting undone or as it stands, and their nats are divided by the file's own words or by their own
tokens.

The cutting is undone by the rules of Megatron-LM's evaluation (Shoeybi et al., 2019), which the lm-eval harness has taken over; but
the word "N" stays, which they make a "1": it stands for numbers in the Penn Treebank, not here.
"""

import re
from pathlib import Path

import numpy as np

from training.data.archives import DAMAGED, open_bytes
from training.errors import DataError
from training.evaluate.corpus import tokenize_stream
from training.evaluate.ngram_baseline import LEFT_OUT
from training.evaluate.perplexity import Score, score_windows
from training.evaluate.results import Figure, Result
from training.evaluate.scoring import Scorer, rolling_requests, start_token
from training.evaluate.subject import Options, Subject, taken
from training.evaluate.text import ngram_baselines

TITLE = re.compile(r"^ = (?!=)[^\n]*(?<!=) = ?$", re.MULTILINE)
_UNDO = [
    (re.compile(pattern), by)
    for pattern, by in (
        (r"s '", "s'"),
        (r" @([-,.])@ ", r"\1"),
        # One mark after another, in this order: of several in a row ("? !") the harness moves but some.
        *((rf" {re.escape(mark)} ", f"{mark} ") for mark in ":;.!?,"),
        (r"\(\s*([^)]*?)\s*\)", r"(\1)"),
        (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
        (r"{\s*([^}]*?)\s*}", r"{\1}"),
        (r'"\s*([^"]*?)\s*"', r'"\1"'),
        (r"'\s*([^']*?)\s*'", r"'\1'"),
        (r"(?<==) (?==)", ""),
        (r" ° ", "°"),
        (r" \n", "\n"),
        (r"\n ", "\n"),
        (r" 's", "'s"),
    )
]


def evaluate_wikitext(subject: Subject, path: Path | str, options: Options) -> Result:
    """Word perplexity and bits per byte of the articles with the cutting undone, and token perplexity of the file as it stands."""
    scorer = subject.scorer()
    every = articles(_read(Path(path)), path)
    chosen = every[: taken(len(every), options.limit)]
    natural = [detokenize(article) for article in chosen]
    n_words, n_bytes = sum(map(count_words, chosen)), sum(len(a.encode()) for a in chosen)
    alone = score_articles(scorer, subject, natural, options.threads)
    context = subject.model.config.context_length
    stride = options.stride or context  # the published figures come from windows that don't overlap
    raw = np.asarray(subject.tokenizer.encode("".join(chosen)), np.int64)
    stream = score_windows(scorer, raw, stride=stride)
    kind = "with <unk> as it stands" if "<unk>" in "".join(chosen) else "without <unk>"
    alone_text = (
        f"cutting into words undone, each article alone behind the token that begins a text, windows of {context} tokens end to "
        f"end; the file is {kind}"
    )
    windows = "end to end" if stride == context else f"{stride} apart"
    figures = [
        Figure(
            "word perplexity",
            alone.word_perplexity(n_words),
            f"nats of {alone.tokens:,} tokens over the file's own {n_words:,} words, counted as the lm-eval harness counts "
            f"them, two too many an article; {alone_text} (the harness has 37.37 for GPT-2 124M on the test split without <unk>; "
            "GPT-2's paper, 37.50, describes the same)",
        ),
        Figure("bits per byte", alone.bits_per_byte(n_bytes), f"the same nats over the file's own {n_bytes:,} bytes"),
        Figure(
            "token perplexity",
            stream.perplexity,
            f"the file as it stands, one stream of {stream.tokens:,} tokens, windows of {context} tokens {windows} (so measured, "
            "GPT-2 124M has 29.94 on the test split without <unk>, beside the paper's 29.41)",
        ),
    ]
    result = Result("wikitext2", str(path), len(chosen), len(every), "articles", figures)
    if options.ngrams:
        tokens = tokenize_stream(natural, subject.tokenizer, threads=options.threads)
        result.baselines.extend(ngram_baselines(options.ngrams, tokens, n_words, n_bytes, by_token=False))
    else:
        result.notes.append(LEFT_OUT)
    return result


def count_words(article: str) -> int:
    """An article's words as the lm-eval harness counts them: the pieces between white space, so that the blanks that an article
    begins and ends with leave an empty piece at either end, two more than there are words."""
    return len(re.split(r"\s+", article))


def articles(text: str, where: Path | str) -> list[str]:
    """The articles of a WikiText file, each from its title's line to the next. DataError when it has no title's line."""
    starts = [match.start() for match in TITLE.finditer(text)]
    if not starts:
        raise DataError(
            f"{where}: not a WikiText file: no line like ' = Title = '; score it as plain text with --on text=FILE"
        )
    return [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]


def detokenize(text: str) -> str:
    """WikiText's text as people write it: the blanks around punctuation, and the marks of numbers and hyphens, undone."""
    for pattern, by in _UNDO:
        text = pattern.sub(by, text)
    return text


def score_articles(scorer: Scorer, subject: Subject, texts: list[str], threads: int) -> Score:
    """Each text alone, in windows end to end behind the token that begins a text."""
    start, context = start_token(subject.tokenizer), subject.model.config.context_length
    encoded = subject.tokenizer.encode_batch(texts, threads=threads)
    requests = [request for tokens in encoded for request in rolling_requests(tokens, start, context)]
    scores = scorer.score(requests, share=False, desc="articles")
    return Score(-sum(scored.total for scored in scores), sum(len(scored.logprobs) for scored in scores))


def _read(path: Path) -> str:
    try:
        with open_bytes(path) as file:
            return file.read().decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}); convert the file to UTF-8") from None
    except DAMAGED as error:
        raise DataError(f"{path}: missing, damaged or unreadable ({error})") from None
