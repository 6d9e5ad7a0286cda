"""POST /v1/completions: OpenAI's way to continue texts."""

import dataclasses
import time
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.choices import Choices, send_whole
from app.api.logprobs import completion_logprobs, scored_prompt
from app.api.routing import STREAMED, JSONRoute, get_service
from app.engine.messages import Delta, Finish, Token
from app.http.errors import invalid
from app.http.sse import EventStream, frame
from app.schemas.completions import DEFAULT_MAX_TOKENS, DEFAULT_PROMPT, CompletionRequest, CompletionResponse, Prompt
from app.schemas.openai import count_usage
from app.service import Service
from model.errors import TokenizerError
from model.tokenizer import Tokenizer

router = APIRouter(prefix="/v1", route_class=JSONRoute, tags=["openai"])


@router.post("/completions", response_model=CompletionResponse, responses=STREAMED)
async def complete(body: CompletionRequest, request: Request) -> Response:
    """Continue texts, whole or streamed."""
    service = get_service(request)
    target = service.resolve_generator(body.model)
    service.engine.check_available()
    prompts = await _read_prompts(service, body)
    streams = service.begin(
        [prompt.ids for prompt in prompts],
        body,
        target=target,
        max_tokens=body.asked_tokens,
        default_tokens=DEFAULT_MAX_TOKENS,
        n=body.n,
        logprobs=body.logprobs,
        prompt_logprobs=body.logprobs if body.echo else None,
        grammar=body.grammar,
    )
    choices = Choices(streams)
    answer = _Answer(target.name, body, prompts, service.engine.tokenizer)
    if body.stream:
        return await EventStream.start(request, choices, answer.chunk, choices.cancel)
    return await send_whole(request, choices, answer.whole)


@dataclasses.dataclass(frozen=True)
class _Prompt:
    """A prompt as the model reads it, and as `echo` gives it back: `hidden` tokens put in front are not part of the text."""

    ids: Sequence[int]
    text: str
    hidden: int = 0


async def _read_prompts(service: Service, body: CompletionRequest) -> list[_Prompt]:
    """The request's prompts. ApiError 400 for more than can ever wait, or an empty one where the model can't begin with it."""
    prompts, tokenizer = body.prompts, service.engine.tokenizer
    most = service.engine.info.slots + service.engine.limits.max_queue
    if len(prompts) > most:
        raise invalid(
            f"prompt: {len(prompts)} prompts are more than the {most} that can run and wait; send fewer at once",
            "prompt",
        )
    if "prompt" not in body.model_fields_set and DEFAULT_PROMPT not in tokenizer.special_tokens:
        prompts = [""]  # a new text, as this model begins one
    size = sum(len(prompt) for prompt in prompts if isinstance(prompt, str))
    try:
        return await service.off_loop(lambda: [_read(prompt, tokenizer, echo=body.echo) for prompt in prompts], size)
    except TokenizerError as error:
        raise invalid(f"prompt: {error}", "prompt") from None


def _read(prompt: Prompt, tokenizer: Tokenizer, *, echo: bool) -> _Prompt:
    if not isinstance(prompt, str):
        return _Prompt(prompt, tokenizer.decode(prompt) if echo else "")
    ids = tokenizer.encode_prompt(prompt)
    begins = ids[0] in (tokenizer.bos_token_id, tokenizer.eos_token_id)
    written = prompt.startswith(tokenizer.token_bytes(ids[0]).decode("utf-8", "replace"))
    return _Prompt(ids, prompt, hidden=int(begins and not written))


class _Answer:
    """Turns deltas into JSON: `whole` for all of them at once, else `chunk` for one after the other."""

    def __init__(self, model: str, body: CompletionRequest, prompts: Sequence[_Prompt], tokenizer: Tokenizer) -> None:
        self._body, self._prompts, self._tokenizer = body, prompts, tokenizer
        self._head: dict[str, Any] = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        n_choices = len(prompts) * body.n
        shared = msgspec.json.encode(self._head)[:-1]
        self._begins = [shared + b',"choices":[{"index":%d,"text":' % index for index in range(n_choices)]
        self._end = b'}],"usage":null}' if body.include_usage else b"}]}"
        self._begun = [False] * n_choices
        self._finishes: dict[int, Finish] = {}

    def whole(self, deltas: Sequence[Delta]) -> bytes:
        """The body of an answer that is not streamed."""
        choices, finishes = [], []
        for index, delta in enumerate(deltas):
            assert delta.finish is not None, "a whole answer ends"
            finishes.append(delta.finish)
            text, logprobs = self._content(index, delta)
            choices.append({"index": index, "text": text, "logprobs": logprobs, **_ending(delta.finish)})
        return msgspec.json.encode({**self._head, "choices": choices, "usage": count_usage(finishes, self._body.n)})

    def chunk(self, event: tuple[int, Delta]) -> bytes:
        """The event of a streamed piece; the last of all may be followed by the usage. Put together by hand: it is done for
        every token of every stream."""
        index, delta = event
        text, logprobs = self._content(index, delta)
        ending = b',"finish_reason":null'
        if delta.finish is not None:
            self._finishes[index] = delta.finish
            ending = b"," + msgspec.json.encode(_ending(delta.finish))[1:-1]
        payload = b"".join(
            (
                self._begins[index],
                msgspec.json.encode(text),
                b',"logprobs":',
                b"null" if logprobs is None else msgspec.json.encode(logprobs),
                ending,
                self._end,
            )
        )
        if not self._body.include_usage or len(self._finishes) < len(self._begins):
            return frame(payload)
        usage = count_usage([self._finishes[place] for place in range(len(self._begins))], self._body.n)
        return frame(payload) + frame(msgspec.json.encode({**self._head, "choices": [], "usage": usage}))

    def _content(self, index: int, delta: Delta) -> tuple[str, dict[str, Any] | None]:
        """Text and logprobs of a piece; a choice's first one brings the echo."""
        first, self._begun[index] = not self._begun[index], True
        if not self._body.echo:
            return delta.text, None if self._body.logprobs is None else completion_logprobs(
                delta.tokens, self._tokenizer
            )
        prompt = self._prompts[index // self._body.n]
        text = prompt.text + delta.text if first else delta.text
        if self._body.logprobs is None:
            return text, None
        logprobs = completion_logprobs(delta.tokens, self._tokenizer, offset=len(prompt.text))
        if first:
            scored = completion_logprobs(self._score(prompt, delta), self._tokenizer)
            logprobs = {name: scored[name] + values for name, values in logprobs.items()}
        return text, logprobs

    def _score(self, prompt: _Prompt, delta: Delta) -> list[Token]:
        assert delta.prompt_logprobs is not None, "the engine was asked for log-probabilities of the prompt"
        return scored_prompt(prompt.ids, delta.prompt_logprobs, self._tokenizer, hidden=prompt.hidden)


def _ending(finish: Finish) -> dict[str, Any]:
    return {"finish_reason": finish.reason, "stop_reason": finish.stop_reason}
