"""The steps of the course, in their order, and the command of each."""

from dataclasses import dataclass
from pathlib import Path

from model.errors import ConfigError
from training.models.page import write_page
from training.models.places import BASE, Places, held_out_arguments
from training.models.publish import publish
from training.models.sms import write_sms
from training.models.tasks import Task
from training.models.validation import DOCUMENTS, write_validation

MODEL = f"$WORK/{BASE}/model"
_WEIGHTS = f"{MODEL}/model.safetensors"
MEASURES = "$WORK/measures"
_WIKITEXT, _VALIDATION = "$DATA/eval/wikitext2_valid.txt.gz", f"$WORK/validation/{DOCUMENTS}"
# Of the larger sets, drawn by the seed, so that a slow machine measures in an hour.
_HELLASWAG, _FEW_SHOT, _ANSWERS = "2000", "400", "300"
SHOTS = (0, 4)
PROMPTS = ("Once upon a time", "The little girl", "In this chapter")  # those of the recipe's own samples
SEEDS = (0, 1)
_CUT_SHORT = (
    "--steps", "150", "--set", "optim.batch_tokens=4096", "--set", "optim.warmup_steps=15", "--set", "run.micro_batch=4",
    "--set", "run.eval_every=150", "--set", "run.save_every=150", "--set", "run.sample_every=0",
)  # fmt: skip
SHORT = {"short-a": 0, "short-a-again": 0, "short-b": 1, "short-c": 2}  # run -> seed
_FEW = {
    "sms": (
        "$WORK/sms-data/test.jsonl", "$WORK/sms-data/train.jsonl",
        ("--prompt", r"Message: {text}\nKind: {label}", "--label-name", "ham=normal"),
    ),
    "sentiment": (
        "$WORK/sentiment-data/test_sst2.jsonl", "$WORK/sentiment-data/train.jsonl",
        ("--prompt", r"Review: {text}\nSentiment: {label}"),
    ),
}  # fmt: skip
_ANSWERED = {"fairytale": "$DATA/instruct/fairytaleqa_val.jsonl.gz", "held-out": "$WORK/instruct-data/held_out.jsonl"}


@dataclass(frozen=True)
class Step:
    """`about`: what it does, in a line."""

    name: str
    about: str
    tasks: tuple[Task, ...]


def course(places: Places) -> list[Step]:
    """All steps. ConfigError when the base's recipe can't be read."""
    return [
        Step("base", "pretrain the base model: many hours, goes on where it was stopped", (_base(places),)),
        Step("instruct-data", "mix the instruction sets", (_mixture(),)),
        Step("sms-data", "split the messages", (_sms_data(),)),
        Step("sentiment-data", "part the film reviews' sentences", (_sentiment_data(),)),
        Step("instruct", "tune the base to answer", (_instruct(),)),
        Step("sms-spam", "tune it to find spam", (_sms(),)),
        Step("sentiment", "tune it to tell praise from blame", (_sentiment(),)),
        Step("base-short", "short runs of the base's recipe, three seeds and one again", _shorts(places)),
        Step("measure", "measure all of them, beside baselines", (_validation(), *_measures(places), *_samples())),
        Step("publish", "put the models into checkpoints/", (_publish(),)),
        Step("page", "write docs/models.md, its figures and pictures, and the README's table", (_page(),)),
    ]  # fmt: skip


def _run(name: str, command: tuple[str, ...], sources: tuple[str, ...], results: tuple[str, ...] = ()) -> Task:
    run = f"$WORK/{name}"
    ends = tuple(f"{run}/{file}" for file in ("model/README.md", "report.html", *results))
    return Task(name, ends, sources, (*command, "--out", run), run=run)


def _base(places: Places) -> Task:
    corpora = ("$DATA/pretrain/mix_train.txt.gz", "$DATA/pretrain/books_large.txt.xz")
    given = tuple(word for corpus in corpora for word in ("--corpus", corpus))
    command = ("pretrain", "$RECIPES/base.toml", *given, *held_out_arguments(places))
    return _run(BASE, command, ("$RECIPES/base.toml", *corpora))


def _mixture() -> Task:
    def mix(places: Places) -> Path:
        from training.models.mixture import write_mixture

        return write_mixture(
            places.path("$DATA"), places.path("$WORK/instruct-data"), recipe=places.path("$RECIPES/base.toml")
        )

    results = ("$WORK/instruct-data/train.jsonl", "$WORK/instruct-data/held_out.jsonl")
    texts = ("$DATA/instruct", "$DATA/pretrain/mix_train.txt.gz", "training/models/own_rows.jsonl")
    return Task("instruct-data", results, (*texts, "$RECIPES/base.toml"), call=mix)


def _sms_data() -> Task:
    recipe = "$RECIPES/classify_sms.toml"

    def split(places: Places) -> Path:
        return write_sms(places.path("$DATA"), places.path("$WORK/sms-data"), places.path(recipe))

    names = ("train.jsonl", "test.jsonl", "test_apart.jsonl", "report.json")
    results = tuple(f"$WORK/sms-data/{name}" for name in names)
    return Task("sms-data", results, ("$DATA/classify/sms_spam.tsv", recipe), call=split)


def _sentiment_data() -> Task:
    def part(places: Places) -> Path:
        from training.models.sentiment import write_sentiment

        return write_sentiment(places.path("$DATA"), places.path("$WORK/sentiment-data"))

    names = ("train.jsonl", "validation.jsonl", "test_sst2.jsonl", "test_rt.jsonl", "report.json")
    read = ("sst2_train.tsv.gz", "sst2_dev.tsv", "rt-polarity.neg.txt", "rt-polarity.pos.txt")
    results = tuple(f"$WORK/sentiment-data/{name}" for name in names)
    return Task("sentiment-data", results, tuple(f"$DATA/classify/{name}" for name in read), call=part)


def _instruct() -> Task:
    data, recipe = "$WORK/instruct-data/train.jsonl", "$RECIPES/instruct.toml"
    command = ("finetune", "instruct", data, "--recipe", recipe, "--model", MODEL)
    return _run("instruct", command, (_WEIGHTS, data, recipe), ("evaluation.json",))


def _sms() -> Task:
    data, recipe = "$DATA/classify/sms_spam.tsv", "$RECIPES/classify_sms.toml"
    command = ("finetune", "classify", data, "--recipe", recipe, "--model", MODEL)
    return _run("sms-spam", command, (_WEIGHTS, data, recipe), ("evaluation.json",))


def _sentiment() -> Task:
    train, validation, test = (f"$WORK/sentiment-data/{side}.jsonl" for side in ("train", "validation", "test_sst2"))
    recipe = "$RECIPES/classify_sentiment.toml"
    held_out = ("--validation", validation, "--test", test)
    command = ("finetune", "classify", train, *held_out, "--recipe", recipe, "--model", MODEL)
    return _run("sentiment", command, (_WEIGHTS, train, validation, test, recipe), ("evaluation.json",))


def _shorts(places: Places) -> tuple[Task, ...]:
    """The runs, and what each reaches on text that is the same for all: a seed chooses its run's validation split too."""
    runs = tuple(_short(places, name) for name in SHORT)
    models = {name: f"$WORK/{name}/model" for name in SHORT}
    measured = (
        _evaluation(f"{name}-text", model, (f"text={_WIKITEXT}",), (f"{model}/model.safetensors", _WIKITEXT), ())
        for name, model in models.items()
    )
    return (*runs, *measured)


def _short(places: Places, name: str) -> Task:
    """150 updates of a quarter of the batch, on the smaller corpus."""
    corpus = "$DATA/pretrain/mix_train.txt.gz"
    command = ("pretrain", "$RECIPES/base.toml", "--corpus", corpus, *_CUT_SHORT, "--seed", str(SHORT[name]))
    return _run(name, (*command, *held_out_arguments(places)), ("$RECIPES/base.toml", corpus))


def _validation() -> Task:
    def write(places: Places) -> Path:
        return write_validation(places.path(f"$WORK/{BASE}/data"), places.path("$WORK/validation"))

    results = (_VALIDATION, "$WORK/validation/report.json")
    return Task("validation", results, (f"$WORK/{BASE}/data/shards/manifest.json",), call=write)


def _measures(places: Places) -> list[Task]:
    """Each evaluation of each model. `base` has n-gram models beside it, of its own training text."""
    shards = f"$WORK/{BASE}/data/shards"
    counted = ("--baseline-corpus", shards)
    tasks = [_texts("base", MODEL, (_WEIGHTS, f"{shards}/manifest.json"), counted, places)]
    asked: list[tuple[str, str, tuple[str, ...], tuple[str, ...]]] = [
        ("base", MODEL, (_WEIGHTS,), ()),
        ("instruct", "$WORK/instruct/model", (_WEIGHTS, "$WORK/instruct/model/adapter_model.safetensors"), ()),
    ]
    if places.stronger is not None:
        stronger = ("stronger", "$STRONGER", ("$STRONGER",), ("--bf16",))  # its products take a while
        tasks.append(_texts(*stronger, places))
        asked.append(stronger)
    for name, model, sources, extra in asked:
        if name != "instruct":
            data = "$DATA/eval/hellaswag_val.jsonl.gz"
            tasks.append(
                _evaluation(
                    f"{name}-hellaswag",
                    model,
                    (f"hellaswag={data}",),
                    (*sources, data),
                    ("--limit", _HELLASWAG, *extra),
                )
            )
        tasks += [_few(name, model, sources, extra, kind, shots) for kind in _FEW for shots in SHOTS]
        tasks += [_answers(name, model, sources, extra, kind) for kind in _ANSWERED]
    return [*tasks, _other_rows("sentiment", "rt"), _other_rows("sms-spam", "apart")]


def _other_rows(adapter: str, rows: str) -> Task:
    """A classifier on test rows besides those of its run."""
    data, model = f"$WORK/{adapter.partition('-')[0]}-data", f"$WORK/{adapter}/model"
    train, test = f"{data}/train.jsonl", f"{data}/test_{rows}.jsonl"
    sources = (_WEIGHTS, f"{model}/adapter_model.safetensors", train, test)
    return _evaluation(f"{adapter}-{rows}", model, (f"classify={test}",), sources, ("--train", train))


def _evaluation(name: str, model: str, on: tuple[str, ...], sources: tuple[str, ...], options: tuple[str, ...]) -> Task:
    result = f"{MEASURES}/{name}.json"
    targets = tuple(word for target in on for word in ("--on", target))
    return Task(name, (result,), sources, ("evaluate", model, *targets, *options, "--json", result))


def _texts(name: str, model: str, sources: tuple[str, ...], options: tuple[str, ...], places: Places) -> Task:
    """Running text, that of unseen authors too where some was given, and the last words of passages."""
    lambada = "$DATA/eval/lambada_test.jsonl.gz"
    texts = [_WIKITEXT, _VALIDATION, *(["$UNSEEN"] if places.unseen is not None else [])]
    on = (*(f"text={text}" for text in texts), f"lambada={lambada}")
    return _evaluation(f"{name}-text", model, on, (*sources, *texts, lambada), options)


def _few(name: str, model: str, sources: tuple[str, ...], extra: tuple[str, ...], kind: str, shots: int) -> Task:
    test, train, asked = _FEW[kind]
    options = (*asked, "--train", train, "--shots", str(shots), "--limit", _FEW_SHOT, *extra)
    return _evaluation(f"{name}-{kind}-{shots}", model, (f"fewshot={test}",), (*sources, train, test), options)


def _answers(name: str, model: str, sources: tuple[str, ...], extra: tuple[str, ...], kind: str) -> Task:
    options = ("--limit", _ANSWERS, "--max-tokens", "64", *extra)
    rows = _ANSWERED[kind]
    return _evaluation(f"{name}-{kind}", model, (f"answers={rows}",), (*sources, rows), options)


def _samples() -> list[Task]:
    """What the base writes after each of the prompts with each of the seeds: none is chosen."""
    tasks = []
    for i, prompt in enumerate(PROMPTS):
        for seed in SEEDS:
            printed = f"$WORK/samples/{i}-{seed}.json"
            command = ("generate", prompt, "--model", MODEL, "--max-tokens", "160", "--seed", str(seed))
            tasks.append(Task(f"sample-{i}-{seed}", (printed,), (_WEIGHTS,), command, printed=printed))
    return tasks


def _publish() -> Task:
    return Task("publish", call=lambda places: publish(places, command_lines(places)))


def _page() -> Task:
    return Task("page", call=lambda places: write_page(places, command_lines(places)))


def command_lines(places: Places) -> dict[str, str]:
    """The command of each task that has one, by the task's name."""
    return {task.name: task.line for step in course(places) for task in step.tasks if task.command}


def named(places: Places, only: str | None, start: str | None) -> list[Step]:
    """The steps to do: the one that `only` names, or those from `start` on. ConfigError lists them for a name that isn't there."""
    steps = course(places)
    names = [step.name for step in steps]
    for name in (only, start):
        if name is not None and name not in names:
            raise ConfigError(f"there is no step {name!r}; the steps are {', '.join(names)}")
    if only is not None:
        return [step for step in steps if step.name == only]
    return steps[names.index(start) :] if start is not None else steps
