"""Train a byte-level BPE tokenizer on a corpus (library `tokenizers`)."""

import sys
from collections.abc import Iterable
from pathlib import Path

from model.errors import ConfigError
from model.files import write_whole

END_OF_TEXT = "<|endoftext|>"


def train_bpe(documents: Iterable[str], vocab_size: int, path: Path) -> None:
    """Write a `tokenizer.json` of `vocab_size` tokens: `<|endoftext|>` (id 0), the 256 bytes, then merges by frequency.

    Text is split as GPT-2 does before merging. Raises ConfigError when `vocab_size` leaves no room for the bytes.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size < len(alphabet) + 1:
        raise ConfigError(
            f"vocab_size must be at least {len(alphabet) + 1} (every byte and {END_OF_TEXT}), not {vocab_size}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=alphabet,
        show_progress=sys.stderr.isatty(),
    )
    tokenizer.train_from_iterator(documents, trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda part: tokenizer.save(str(part)))
