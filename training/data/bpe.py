"""Train a byte-level BPE tokenizer on a corpus (library `tokenizers`)."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from model.errors import ConfigError
from model.files import write_whole
from model.pretokenizers import cut_behind_words
from training.errors import DataError

END_OF_TEXT = "<|endoftext|>"
_PART = 1 << 16  # characters given to the library at a time; it needs some 50 bytes for each of them


def train_bpe(documents: Iterable[str], vocab_size: int, path: Path, *, special_tokens: Sequence[str] = ()) -> None:
    """Write a `tokenizer.json` of `vocab_size` tokens: `<|endoftext|>` (id 0), then `special_tokens` in their order, the 256
    bytes, then merges by frequency, each of a pair seen twice at least.

    Text is split as GPT-2 does before merging; special tokens written in it count as text. Memory grows with the number of
    different words, not with the text. Raises ConfigError when `vocab_size` leaves no room for the bytes or a special token is
    empty or named twice, DataError when the text has too few pairs for so many tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [END_OF_TEXT, *special_tokens]
    if len({*special, ""}) <= len(special):
        raise ConfigError(f"special_tokens: {', '.join(map(repr, special_tokens))}: each needs a text of its own")
    if vocab_size < len(alphabet) + len(special):
        raise ConfigError(
            f"vocab_size must be at least {len(alphabet) + len(special)} (every byte and {', '.join(special)}), not {vocab_size}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=sys.stderr.isatty(),
    )
    tokenizer.train_from_iterator(_parts(documents), trainer)
    found = tokenizer.get_vocab_size()
    if found < vocab_size:
        raise DataError(
            f"the text has too few repeated pairs for a vocabulary of {vocab_size:,} tokens: they make {found:,}; set "
            "vocab_size to that or less, or give more text"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda part: tokenizer.save(str(part)))


def _parts(documents: Iterable[str]) -> Iterator[str]:
    for text in documents:
        yield from cut_behind_words(text, _PART)
