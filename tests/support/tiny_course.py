"""Data and recipes for a whole course of `python -m training.models` in minutes: made-up sentences, a model of two layers."""

import gzip
import json
import lzma
import random
from pathlib import Path

WORDS = [f"{a}{b}" for a in "bdfgklmnprstvw" for b in ("ado", "elin", "iro", "oma", "usk", "ay", "ent", "old")]

_RUN = """
tensorboard = false
compile = false
threads = 1
save_every = 5
eval_every = 5
"""
_BASE = f"""
name = "homegrown-base"
[data]
vocab_size = 300
validation_fraction = 0.2
about = "Made-up sentences."
[data.filters]
held_out = ["../shared/data/eval/wikitext2_valid.txt.gz"]
[model]
preset = "homegrown-4m"
changes = {{ n_layer = 2, d_model = 64, n_head = 2, n_kv_head = 2, head_dim = 32, d_ff = 96, context_length = 512 }}
[optim]
batch_tokens = 2048
warmup_steps = 2
[run]
steps = 10
micro_batch = 4
eval_tokens = 2000
{_RUN}
"""
_TUNED = f"""
method = "lora"
[lora]
rank = 2
[run]
epochs = 1
{_RUN}
"""
_RECIPES = {
    "base": _BASE,
    "instruct": f"name = 'homegrown-instruct'\n{_TUNED}[data]\ntemplate = 'alpaca'\n[answers]\nmeasured = 5\nmax_tokens = 8\n",
    "classify_sms": f"name = 'homegrown-sms-spam'\n{_TUNED}[data]\ncolumns = ['label', 'text']\ntest_fraction = 0.2\n",
    "classify_sentiment": f"name = 'homegrown-sentiment'\n{_TUNED}[data]\nlabels = ['negative', 'positive']\n",
}


def write_recipes(directory: Path) -> None:
    """The four recipes of the course, for a model of two layers."""
    directory.mkdir()
    for name, text in _RECIPES.items():
        (directory / f"{name}.toml").write_text(text)


def write_data(directory: Path) -> None:
    """What the course reads, a few rows of each."""
    rng = random.Random(0)

    def words(n: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(n))

    def documents(n: int) -> str:
        return "\n<|endoftext|>\n".join(". ".join(words(8) for _ in range(30)) for _ in range(n))

    def jsonl(rows: list[dict[str, object]]) -> bytes:
        return "\n".join(map(json.dumps, rows)).encode()

    tone = ("dull", "fine")
    sentences = [(f"{words(5)} {tone[i % 2]} {words(4)}", i % 2) for i in range(60)]
    phrases = [*sentences[:30], *((f"{tone[i % 2]} {words(2)}", i % 2) for i in range(60))]
    dev = [(f"{tone[i % 2]} {words(6)}", i % 2) for i in range(24)]
    apart = [(f"{words(13)} {tone[i % 2]}", i % 2) for i in range(24)]
    tales = [{"instruction": f"Who saw {words(1)}?", "input": words(12), "output": words(2)} for _ in range(12)]
    files = {
        "pretrain/mix_train.txt.gz": gzip.compress(documents(40).encode()),
        "pretrain/books_large.txt.xz": lzma.compress(documents(40).encode()),
        "eval/wikitext2_valid.txt.gz": gzip.compress(documents(2).encode()),
        "eval/lambada_test.jsonl.gz": gzip.compress(jsonl([{"text": words(12)} for _ in range(6)])),
        "eval/hellaswag_val.jsonl.gz": gzip.compress(
            jsonl([{"ctx": words(6), "label": i % 4, "endings": [words(3) for _ in range(4)]} for i in range(6)])
        ),
        "classify/sms_spam.tsv": "\n".join(
            f"{('ham', 'spam')[i % 2]}\t{words(4)} {('later', 'free prize')[i % 2]} {i}" for i in range(80)
        ).encode(),
        "classify/rt-polarity.neg.txt": "\n".join(text for text, label in (*sentences, *apart) if not label).encode(),
        "classify/rt-polarity.pos.txt": "\n".join(text for text, label in (*sentences, *apart) if label).encode(),
        "classify/sst2_dev.tsv": ("label\tcontent\n" + "\n".join(f"{label}\t{text}" for text, label in dev)).encode(),
        "classify/sst2_train.tsv.gz": gzip.compress(
            ("label\tsentence\n" + "\n".join(f"{label}\t{text}" for text, label in phrases)).encode()
        ),
        "instruct/fairytaleqa_val.jsonl.gz": gzip.compress(jsonl(tales)),
    }
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)


def tiny_mixture(_data: Path, directory: Path, *, recipe: Path) -> Path:
    """In the place of training.models.mixture, which wants the real sets."""
    assert recipe.is_file()
    rng = random.Random(1)
    directory.mkdir(parents=True)
    for name, count in (("train", 24), ("held_out", 6)):
        rows = [
            {"instruction": f"Say {rng.choice(WORDS)}.", "input": "", "output": rng.choice(WORDS)} for _ in range(count)
        ]
        (directory / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (directory / "report.json").write_text(json.dumps({"sources": {"made up": {"rows": 24, "left out": 0}}}))
    return directory / "train.jsonl"
