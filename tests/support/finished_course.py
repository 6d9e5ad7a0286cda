"""What a finished course leaves, with made-up figures and no weights: enough for the page, the cards and checkpoints/."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from model.config import preset
from training.card import PretrainResult, model_card
from training.data.bpe import train_bpe
from training.data.shards import read_manifest, write_shards
from training.evaluate.perplexity import Score
from training.evaluate.results import Baseline, Figure, Result, share_figure
from training.models.page import BEGIN, END
from training.models.places import ADAPTERS, BASE, Places
from training.pretrain_recipe import PretrainSettings
from training.state import Counters

DOCUMENTS = [f"Text {i} tells of a boat, a cat and the green sea." for i in range(40)]


def share(name: str, right: int, n: int = 100) -> Figure:
    return share_figure(name, [True] * right + [False] * (n - right), "of made-up items")


def answers(right: int) -> Result:
    figures = [share(name, right) for name in ("exact match", "token F1", "ROUGE-L", "ended by itself")]
    result = Result("answers", "/home/me/a.jsonl", 100, 1025, "answers", figures)
    result.baselines.append(Baseline.of("first sentence", [share("token F1", 30)], ""))
    result.details["examples"] = [
        {"request": "Who had | seven sons?", "reference": "a farmer", "answer": f"answer {right}"}
    ]
    return result


def labelled(task: str, data: str, right: int) -> Result:
    details = {
        "labels": ["ham", "spam"],
        "confusion": [[40, 10], [5, 45]],
        "reliability": [{"low": 0.0}],
    }
    result = Result(task, data, 100, 100, "rows", [share("accuracy", right), share("macro F1", right)], details=details)
    result.baselines.append(Baseline.of("majority", [share("accuracy", 50)], ""))
    difference = Figure("accuracy", 0.02, "of the same rows", -0.01, 0.05, share=True)
    result.baselines.append(Baseline.of("tf-idf + logistic", [share("accuracy", 70)], "", [difference]))
    return result


def text(bits: float, data: str) -> Result:
    """Of one text; the 5-gram is 0.6 bits worse."""
    figures = [
        Figure("bits per byte", bits, f"of {data[-22:]}"),
        Figure("word perplexity", 90.0, ""),
        Figure("loss", 3.0, ""),
    ]
    result = Result("text", data, 1, 1, "documents", figures, notes=["n-gram models are left out"])
    gram = {"bits per byte": bits + 0.6, "word perplexity": 900.0, "loss": 5.0}
    result.baselines.append(Baseline("5-gram", gram, ""))
    return result


def texts(bits: float, work: Path) -> list[Result]:
    """WikiText, the validation split, somewhat easier, and LAMBADA."""
    lambada = [share("last-word accuracy", 12), Figure("last-word perplexity", 1e5, "")]
    return [
        text(bits, "/home/me/wikitext2_valid.txt.gz"),
        text(bits - 0.25, str(work / "validation" / "documents.jsonl")),
        Result("lambada", "/home/me/l.jsonl", 100, 100, "passages", lambada),
    ]


def hellaswag(right: int) -> list[Result]:
    result = Result("hellaswag", "/home/me/h.jsonl", 2000, 10042, "items", [share("accuracy by characters", right)])
    result.baselines.append(Baseline("chance", {"accuracy by characters": 0.25}, ""))
    return [result]


def put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")


def measured(work: Path, name: str, results: list[Result], **model: Any) -> None:
    about = {"name": "/home/me/m", "parameters": 13_800_000, "context": 1024, "arithmetic": "float32"} | model
    content = {"model": about, "results": [result.to_json() for result in results]}
    put(work / "measures" / f"{name}.json", content)


def pretrained(run: Path, tokenizer: Path, loss: float) -> None:
    """A base's run: log, shards, card."""
    shards = run / "data" / "shards"
    write_shards(DOCUMENTS, tokenizer, shards, corpus=["corpus.txt"], validation_fraction=0.2, seed=0, threads=1)
    manifest = read_manifest(shards)
    result = PretrainResult(
        PretrainSettings.model_validate({"run": {"steps": 3}, "data": {"about": "Sea stories, CC BY, OpenStax."}}),
        preset("homegrown-4m"), manifest, Counters(step=3), Score(loss * 100, 100),
        [{"order": n, "loss": 5.0, "bits_per_byte": 2.0 + 0.1 * n} for n in range(1, 6)],
        environment={"command": f"homegrown pretrain {tokenizer}"},
    )  # fmt: skip
    put(run / "model" / "README.md", model_card(result))
    lines = [
        {"step": i, "tokens_seen": 100 * i, "loss": 9.0 - i / 200, "tokens_per_second": 5000 + i % 2}
        for i in range(1, 1001)
    ]
    lines.append({"step": 1000, "tokens_seen": 100_000, "validation_loss": loss, "seconds": 60_000.0})
    put(run / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    put(run / "report.html", "<html></html>")


def stronger_too(work: Path) -> None:
    """The stronger model's measures: better at answers, worse at the labels."""
    about = {"parameters": 134_515_008, "context": 8192, "arithmetic": "bfloat16 products, float32 sums"}
    measured(work, "stronger-text", texts(1.2, work), **about)
    measured(work, "stronger-hellaswag", hellaswag(40))
    for kind in ("fairytale", "held-out"):
        measured(work, f"stronger-{kind}", [answers(80)])
    for kind in ("sms", "sentiment"):
        for shots in (0, 4):
            measured(work, f"stronger-{kind}-{shots}", [labelled("fewshot", "rows", 35)])


def adapter(model: Path, task: str) -> None:
    """A directory that looks like an adapter's."""
    config = {"peft_type": "LORA", "task_type": task, "base_model_name_or_path": "/home/me/base/model", "r": 2}
    put(model / "adapter_config.json", config)
    put(model / "adapter_model.safetensors", "weights of an adapter")
    put(model / "README.md", '---\nlibrary_name: "peft"\n---\n# an adapter\n\nMade of homegrown-base.\n')


def finished_course(tmp_path: Path, model: Path) -> Places:
    """A course in `tmp_path`, its base of the shape of `model`."""
    work = tmp_path / "work"
    base = work / BASE
    train_bpe(DOCUMENTS, 280, tmp_path / "tokenizer.json")
    pretrained(base, tmp_path / "tokenizer.json", 3.0)
    shutil.copy(model / "config.json", base / "model" / "config.json")
    put(base / "model" / "model.safetensors", "weights of the base")
    for name in ADAPTERS:
        adapter(work / name / "model", "CAUSAL_LM" if name == "instruct" else "SEQ_CLS")
    for name, right in (("sms-spam", 99), ("sentiment", 80)):
        results = [labelled("classify", side, right).to_json() for side in ("test", "validation")]
        put(work / name / "evaluation.json", {"notes": [], "results": results})
    for name, bits in (("short-a", 2.0), ("short-a-again", 2.0), ("short-b", 2.1), ("short-c", 2.05)):
        measured(work, f"{name}-text", [text(bits, "/home/me/wikitext2_valid.txt.gz")])
    kept_back = {"documents": 18, "bytes": 1_000_000, "documents that shared a passage": 8, "bytes taken out": 2664}
    put(work / "validation" / "report.json", kept_back)
    put(
        work / "instruct-data" / "report.json",
        {"sources": {"tales": {"rows": 5, "left out": 1}}, "rows": 5, "held out": 1},
    )
    put(work / "sms-data" / "report.json", {"test.jsonl": {"rows": 990}})
    put(work / "sentiment-data" / "report.json", {"train.jsonl": {"rows": 60_000}, "validation.jsonl": {"rows": 900}})
    put(work / "samples" / "0-0.json", {"command": "homegrown generate 'Once'", "text": "Once upon\n# a time"})
    measured(work, "base-text", texts(1.9, work))
    measured(work, "base-hellaswag", hellaswag(26))
    measured(work, "sentiment-rt", [labelled("classify", "test_rt.jsonl", 78)])
    measured(work, "sms-spam-apart", [labelled("classify", "test_apart.jsonl", 97)])
    for name, right in (("base", 15), ("instruct", 45)):
        for kind in ("fairytale", "held-out"):
            measured(work, f"{name}-{kind}", [answers(right)])
        for kind in ("sms", "sentiment"):
            for shots in (0, 4):
                measured(work, f"{name}-{kind}-{shots}", [labelled("fewshot", "rows", 40 + right)])
    for name in ("base", "instruct", "classify_sms", "classify_sentiment"):
        put(tmp_path / "recipes" / f"{name}.toml", 'name = "a recipe"\n')
    put(tmp_path / "README.md", f"# Mine\n\n{BEGIN}\nold\n{END}\n\nThe end.\n")
    (tmp_path / "data").mkdir()
    return at(tmp_path)


def at(tmp_path: Path) -> Places:
    """The places of a course that lies in `tmp_path`."""
    work = tmp_path / "work"
    return replace(
        Places(tmp_path / "data", work), recipes=tmp_path / "recipes", checkpoints=tmp_path / "checkpoints",
        docs=tmp_path / "docs", readme=tmp_path / "README.md",
    )  # fmt: skip
