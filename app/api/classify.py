"""POST /classify: by a classifier's head, or by the likelihood of labels under a language model."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.inputs import encode_text, run_all
from app.api.routing import ERRORS, JSONRoute, get_service
from app.engine.client import EngineClient
from app.http.errors import ApiError, invalid
from app.likelihood import (
    CONTENT_FREE,
    BiasCache,
    Continuation,
    Prompter,
    calibrated,
    content_free_bias,
    mean_logprob,
    softmax,
)
from app.schemas.classify import ClassifyRequest, ClassifyResponse
from app.service import Service, Target
from model.errors import ContextLengthError
from model.sampling_params import SamplingParams

_GREEDY = SamplingParams(temperature=0.0)
_OF_LIKELIHOOD = {"labels", "examples", "template"}  # fields that a language model takes, and no classifier

router = APIRouter(route_class=JSONRoute, tags=["classify"])


@dataclass(frozen=True)
class _Answer:
    """Of one text: a probability per label, whether its end was cut off, and how many tokens were read for it."""

    probabilities: list[float]
    truncated: bool
    n_tokens: int


@router.post("/classify", response_model=ClassifyResponse, responses=ERRORS)
async def classify(body: ClassifyRequest, request: Request) -> Response:
    """Label texts, with the probability of each label."""
    service = get_service(request)
    target = _target(service, body)
    labels = _labels(body, target, service.classifiers)
    service.engine.check_available()
    by = _by_head if target.classifies else _by_likelihood
    answers = await by(request, service, target, body)
    data = [_render(i, labels, answer, body.top_k) for i, answer in enumerate(answers)]
    n_tokens = sum(answer.n_tokens for answer in answers)
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    fields = {
        "id": f"classify-{uuid.uuid4().hex}",
        "object": "list",
        "model": target.name,
        "data": data,
        "usage": usage,
    }
    return Response(msgspec.json.encode(fields), media_type="application/json")


def _target(service: Service, body: ClassifyRequest) -> Target:
    """The model that labels. A request that names neither a model nor what a language model needs means the one classifier that
    there is, where the served model is none. ApiError 404 for an unknown name."""
    target = service.resolve_model(body.model)
    if body.model is not None or target.classifies or not _OF_LIKELIHOOD.isdisjoint(body.model_fields_set):
        return target
    classifiers = service.classifiers
    return service.resolve_model(classifiers[0]) if len(classifiers) == 1 else target


def _labels(body: ClassifyRequest, target: Target, classifiers: Sequence[str]) -> Sequence[str]:
    """The labels to choose from. ApiError 400 when the fields don't fit the kind of model."""
    if target.classifies:
        for name in sorted(_OF_LIKELIHOOD & body.model_fields_set):
            raise invalid(f"{name}: {target.name} is a classifier with labels of its own; leave {name} out", name)
        return target.labels
    if body.labels is None:
        other = f", or ask one of the classifiers by `model`: {', '.join(classifiers)}" if classifiers else ""
        why = f"{target.name} is a language model; name the labels that it is to choose from{other}"
        raise invalid(f"labels: {why}", "labels")
    return body.labels


def _render(index: int, labels: Sequence[str], answer: _Answer, top_k: int | None) -> dict[str, object]:
    best = sorted(zip(labels, answer.probabilities, strict=True), key=lambda pair: -pair[1])
    return {
        "object": "classification",
        "index": index,
        "label": best[0][0],
        "scores": dict(best[:top_k]),
        "truncated": answer.truncated,
    }


async def _by_head(request: Request, service: Service, target: Target, body: ClassifyRequest) -> list[_Answer]:
    """A classifier's own labels."""
    tokenizer, context = service.engine.tokenizer, service.engine.info.context
    texts = [text.strip() for text in body.texts]
    rows = await service.off_loop(lambda: [encode_text(tokenizer, text) for text in texts], sum(map(len, texts)))
    kept = [ids[:context] for ids in rows]
    jobs = [partial(service.engine.classify, ids, adapter=target.adapter) for ids in kept]
    scores = await run_all(request, jobs)
    return [
        _Answer(softmax(each), len(ids) > context, len(cut)) for each, ids, cut in zip(scores, rows, kept, strict=True)
    ]


async def _by_likelihood(request: Request, service: Service, target: Target, body: ClassifyRequest) -> list[_Answer]:
    """The request's labels, by a language model that was not trained for them."""
    assert body.labels is not None
    labels, engine = body.labels, service.engine
    examples = [(example.text, example.label) for example in body.examples]
    # An adapter can be loaded anew under the same name: what is known of it is not kept.
    cache = service.label_biases if target.adapter is None else None
    key = BiasCache.key(labels, body.template, examples)
    bias = cache and cache.get(key)
    texts = list(body.texts) if bias else [*CONTENT_FREE, *body.texts]

    def ask() -> list:
        prompter = Prompter(
            engine.tokenizer, labels, context=engine.info.context, template=body.template, examples=examples
        )
        return [prompter.question(text) for text in texts]

    try:
        questions = await service.off_loop(ask, _characters(texts, labels, examples))
    except ContextLengthError as error:
        counts = {"n_prompt_tokens": error.n_prompt_tokens, "n_ctx": error.n_ctx}
        param = next((name for name in ("examples", "template") if name in body.model_fields_set), "labels")
        raise ApiError(400, str(error), code="context_length_exceeded", param=param, extra=counts) from None
    jobs = [partial(_score, engine, target, each) for question in questions for each in question.continuations]
    means = await run_all(request, jobs)
    rows = [means[at : at + len(labels)] for at in range(0, len(means), len(labels))]
    if bias is None:
        bias = content_free_bias(rows[: len(CONTENT_FREE)])
        rows, questions = rows[len(CONTENT_FREE) :], questions[len(CONTENT_FREE) :]
        if cache is not None:
            cache.put(key, bias)
    return [
        _Answer(calibrated(row, bias), question.truncated, question.n_tokens)
        for row, question in zip(rows, questions, strict=True)
    ]


def _characters(texts: Sequence[str], labels: Sequence[str], examples: Sequence[tuple[str, str]]) -> int:
    """How many there may be to tokenise: a label that merges with what is before it takes a whole prompt of its own."""
    shown = sum(len(text) + len(label) for text, label in examples)
    return (sum(map(len, texts)) + len(texts) * shown) * len(labels)


async def _score(engine: EngineClient, target: Target, continuation: Continuation) -> float:
    """The label's mean log-probability. The prompt before it is computed once for all labels: see the scheduler."""
    stream = engine.generate(
        [*continuation.prompt, *continuation.label], _GREEDY, 0,
        adapter=target.adapter, prompt_logprobs=0, score_from=len(continuation.prompt), speculate=False,
    )  # fmt: skip
    async with stream:
        scored = (await stream.collect()).prompt_logprobs or []
    return mean_logprob([each.logprob for each in scored if each is not None])
