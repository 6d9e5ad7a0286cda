"""From the crawl to token shards: bytes, hours of processors, memory."""

from dataclasses import dataclass

from benchmarks.scale import constants as c


@dataclass(frozen=True)
class Corpus:
    """What `tokens` tokens to learn from take on the way. Bytes; seconds are of one core (tokenising: of two)."""

    crawls: float
    wet: float
    unpacked: float
    before_repeats: float
    text: float
    shards16: float
    shards32: float
    near_documents: float
    near_memory: float
    letters_seconds: float
    exact_seconds: float
    near_seconds: float
    tokenize_seconds: float
    order_bytes: float


def corpus(tokens: float, context: int) -> Corpus:
    """The chain for `tokens` tokens; `order_bytes`: the order of an epoch's windows of `context`, in each process."""
    crawls = tokens / c.CRAWL_TOKENS.value
    text = tokens * c.TOKEN_BYTES.value
    before = text * c.BEFORE_REPEATS.value
    wet = crawls * c.CRAWL_WET.value
    unpacked = wet * c.GZIP.value
    documents = tokens * c.BEFORE_REPEATS.value / c.DOCUMENT_TOKENS.value
    return Corpus(
        crawls=crawls,
        wet=wet,
        unpacked=unpacked,
        before_repeats=before,
        text=text,
        shards16=2 * tokens,
        shards32=4 * tokens,
        near_documents=documents,
        near_memory=documents * c.NEAR_BYTES.value,
        letters_seconds=unpacked / c.FILTER.value,
        exact_seconds=before / c.EXACT.value,
        near_seconds=before / c.NEAR.value,
        tokenize_seconds=text / c.TOKENIZE.value,
        order_bytes=8 * tokens / context,
    )
