"""Documents -> token ids on several threads, in order, while the next ones are being read.

What is in the air is bounded by its text, not by the number of documents; a long document is worked on by all threads.
"""

from collections import deque
from collections.abc import Generator, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from model.tokenizer import Tokenizer
from training.errors import DataError

_PART = 1 << 18  # characters of one task
_AHEAD = 16  # tasks a thread, at most: reading stops there

Key = TypeVar("Key", bound=Hashable)
_Task = list[tuple[Key, str, bool]]  # texts; whether each begins a document


def tokenized(
    documents: Iterable[tuple[Key, str]], tokenizer: Tokenizer, *, threads: int
) -> Generator[dict[Key, np.ndarray], None, None]:
    """The ids of `documents` (key, text), each behind an end-of-text token, in runs [n] uint32: those of one key, end to end, are
    its documents' in order. DataError when the tokenizer has no end-of-text token."""
    if tokenizer.eos_token_id is None:
        raise DataError("the tokenizer has no end-of-text token; shards need one to part documents")
    end = np.array([tokenizer.eos_token_id], np.uint32)

    def encode(task: _Task[Key]) -> dict[Key, np.ndarray]:
        runs: dict[Key, list[np.ndarray]] = {}
        for key, text, begins in task:
            runs.setdefault(key, []).extend([end] * begins + [tokenizer.encode_array(text)])
        return {key: np.concatenate(arrays) for key, arrays in runs.items()}

    pool = ThreadPoolExecutor(threads, thread_name_prefix="tokenize")
    pending: deque[Future[dict[Key, np.ndarray]]] = deque()
    try:
        for task in _tasks(documents, tokenizer):
            pending.append(pool.submit(encode, task))
            while pending and (pending[0].done() or len(pending) > threads * _AHEAD):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _tasks(documents: Iterable[tuple[Key, str]], tokenizer: Tokenizer) -> Iterator[_Task[Key]]:
    """Many short documents, or a part of a long one, at a time."""
    task: _Task[Key] = []
    size = 0
    for key, text in documents:
        begins = True
        for part in tokenizer.cut(text, _PART) if len(text) > _PART else (text,):
            task.append((key, part, begins))
            size, begins = size + len(part), False
            if size >= _PART:
                yield task
                task, size = [], 0
    if task:
        yield task
