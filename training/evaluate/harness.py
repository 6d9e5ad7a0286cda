"""EleutherAI's lm-eval harness over our models: `HarnessModel` is what its evaluator takes, `evaluate_harness` runs its tasks.

The conventions are those of the harness's own Hugging Face model, so that figures are the same: contexts lose tokens from their
left, a context and its continuation are encoded together, texts for perplexity begin behind BOS or the end-of-text token. This
module needs the library `lm_eval`, so it is imported only when asked for.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from lm_eval.api.model import TemplateLM

from model.errors import ConfigError, HomegrownError
from model.generate import generate
from model.prompts import PromptTemplate
from model.sampling_params import SamplingParams
from training.answering import greedy_answers
from training.evaluate.results import Z95, Figure, Result, mean_interval
from training.evaluate.scoring import Request, rolling_requests, start_token
from training.evaluate.subject import Options, Subject

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

_MAX_TOKENS = 256  # the harness's own default
_SHARES = ("acc", "acc_norm", "exact_match")  # of its measures, parts of 1
_MAX_TOKENS_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class HarnessModel(TemplateLM):
    """A language model as the harness's evaluator takes it: `lm_eval.simple_evaluate(model=HarnessModel(load_subject(...)))`."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject = subject
        self._scorer = subject.scorer()
        self._template = PromptTemplate.from_directory(subject.directory)

    @property
    def eot_token_id(self) -> int:
        """The end-of-text token."""
        eos = self.subject.tokenizer.eos_token_id
        return self.prefix_token_id if eos is None else eos

    @property
    def prefix_token_id(self) -> int:
        """What a text without a context begins behind."""
        return start_token(self.subject.tokenizer)

    @property
    def max_length(self) -> int:
        """The model's context in tokens."""
        return self.subject.model.config.context_length

    @property
    def tokenizer_name(self) -> str:
        """What the harness's caches know the tokenizer by."""
        return self.subject.name

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The model's own template, or the plain one."""
        return self._template.text if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Messages as the prompt's text."""
        return self._template.render(
            chat_history,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids; special tokens written in the text count as such, and BOS stands in front where the tokenizer wants it, unless
        `add_special_tokens` is False or the text begins with it."""
        tokenizer = self.subject.tokenizer
        ids = tokenizer.encode(string, allow_special=True)
        bos = tokenizer.bos_token_id
        wanted = tokenizer.add_bos and add_special_tokens is not False
        return [bos, *ids] if wanted and bos is not None and ids[:1] != [bos] else ids

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_options: Any
    ) -> list[tuple[float, bool]]:
        scores = self._scorer.score([Request(context, target) for _, context, target in requests], desc="lm-eval")
        answers = [(scored.total, scored.exact) for scored in scores]
        for (texts, _, _), answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def loglikelihood_rolling(self, requests: "list[Instance]", disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002
        """The log-probability of each whole text, in windows of the context, end to end."""
        texts = [cast(str, request.args[0]) for request in requests]
        windows = [rolling_requests(self.tok_encode(text), self.prefix_token_id, self.max_length) for text in texts]
        scores = iter(self._scorer.score([w for own in windows for w in own], share=False, desc="lm-eval"))
        totals = [sum(next(scores).total for _ in own) for own in windows]
        for text, total in zip(texts, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return totals

    def generate_until(self, requests: "list[Instance]", disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
        """The text that the model writes after each prompt, up to a stop, its end token, or the tokens asked for."""
        asked = [cast(tuple[str, dict[str, Any]], request.args) for request in requests]
        answers: dict[int, list[int]] = {}
        with self._scorer.bar(len(asked), "lm-eval") as bar:
            for settings, members in _same_settings([kwargs for _, kwargs in asked]):
                prompts = [self._prompt(asked[i][0], settings[0]) for i in members]
                answers.update(zip(members, self._write(prompts, *settings, bar.update), strict=True))
        texts = []
        for i, (context, kwargs) in enumerate(asked):
            text = self.subject.tokenizer.decode(answers[i], skip_special=True)
            for stop in _stops(kwargs):
                text = text.partition(stop)[0]
            self.cache_hook.add_partial("generate_until", (context, kwargs), text)
            texts.append(text)
        return texts

    def _prompt(self, context: str, max_tokens: int) -> list[int]:
        room = self.max_length - max_tokens
        if room < 1:
            raise ConfigError(
                f"the task asks for {max_tokens} new tokens, but the model's context holds {self.max_length} with the prompt; "
                "set max_gen_toks lower"
            )
        return (self.tok_encode(context) or [self.prefix_token_id])[-room:]

    def _write(
        self, prompts: list[list[int]], max_tokens: int, params: SamplingParams, done: Callable[[int], object]
    ) -> Sequence[list[int]]:
        model = self.subject.language_model
        if params.greedy:
            return greedy_answers(model, prompts, max_tokens, bf16=self.subject.bf16, done=done)
        answers = []
        for prompt in prompts:
            answers.append(list(generate(model, prompt, params, max_tokens)))
            done(1)
        return answers


def evaluate_harness(subject: Subject, tasks: str, options: Options) -> Result:
    """The harness's tasks (names with commas between) on the model; its own definitions, or those under `options.tasks`. Raises
    HomegrownError when a task isn't known or its data can't be had."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    # Reading the harness's own ten thousand task files takes seconds: only when a task is not among one's own.
    manager = TaskManager(include_path=str(options.tasks), include_defaults=False) if options.tasks else TaskManager()
    if options.tasks and not set(names) <= set(manager.all_tasks):
        manager = TaskManager(include_path=str(options.tasks))
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown or not names:
        raise HomegrownError(
            f"lm-eval has no task {', '.join(unknown) or '(none given)'}; list them with: lm-eval ls tasks"
        )
    run: Any = lm_eval.simple_evaluate
    try:
        found: dict[str, Any] = run(
            model=HarnessModel(subject),
            tasks=names,
            task_manager=manager,
            limit=options.limit,
            num_fewshot=options.shots or None,
        )
    except OSError as error:  # a data set that can't be fetched
        raise HomegrownError(f"lm-eval: {tasks}: {str(error).splitlines()[0]}") from None
    samples = found["n-samples"]
    figures = [figure for name in found["results"] for figure in _figures(found, name)]
    n, total = (sum(int(samples[name][kind]) for name in samples) for kind in ("effective", "original"))
    return Result("lm-eval", tasks, n, total, "documents", figures)


def _figures(found: Mapping[str, Any], task: str) -> list[Figure]:
    """A task's measures with the harness's standard errors as intervals."""
    values = found["results"][task]
    figures = []
    for key, value in values.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = values.get(f"{metric}_stderr,{kind}")
        half = Z95 * error if isinstance(error, int | float) and math.isfinite(error) else None
        share = metric in _SHARES and 0 <= value <= 1
        convention = (
            f"lm-eval, version {found['versions'].get(task)}, {found['n-shot'].get(task, 0)}-shot, filter {kind}"
        )
        low, high = mean_interval(float(value), half, share=share)
        figures.append(Figure(f"{task} {metric}", float(value), convention, low, high, share))
    return figures


def _same_settings(all_kwargs: Sequence[Mapping[str, Any]]) -> list[tuple[tuple[int, SamplingParams], list[int]]]:
    """Indices of the requests that are to be written in one way, with the tokens asked for and how they are drawn."""
    groups: dict[str, tuple[tuple[int, SamplingParams], list[int]]] = {}
    for i, kwargs in enumerate(all_kwargs):
        max_tokens = next((int(kwargs[name]) for name in _MAX_TOKENS_NAMES if name in kwargs), _MAX_TOKENS)
        temperature = float(kwargs.get("temperature", 0.0)) if kwargs.get("do_sample", True) else 0.0
        params = SamplingParams(
            temperature=temperature, top_p=float(kwargs.get("top_p", 1.0)), top_k=int(kwargs.get("top_k", 0)), seed=0
        )
        groups.setdefault(repr((max_tokens, params)), ((max_tokens, params), []))[1].append(i)
    return list(groups.values())


def _stops(kwargs: Mapping[str, Any]) -> list[str]:
    until = kwargs.get("until") or []
    return [until] if isinstance(until, str) else [stop for stop in until if stop]
