"""Validation requests that a model is asked before, during and after training."""

from collections.abc import Sequence
from dataclasses import dataclass

from model.gpt import GPT
from training.answering import greedy_answers, until
from training.data.batch import epoch_order
from training.data.dialogues import Raw, Request
from training.evaluate.answers import overlap_figures
from training.evaluate.results import Figure
from training.instruct_recipe import AnswerSettings
from training.templates import Templates


@dataclass(frozen=True)
class Question:
    """A request, the reference's answer to it, and its prompt's token ids."""

    request: Request
    reference: str
    prompt: list[int]


class Questions:
    """Validation requests, chosen by the seed, that a model is asked before, during and after training."""

    def __init__(
        self,
        pairs: Sequence[tuple[Request, str]],
        templates: Templates,
        settings: AnswerSettings,
        *,
        context: int,
        seed: int,
    ) -> None:
        """`pairs`: requests and references; those whose prompt leaves no room in the model's `context` are passed over."""
        self.settings, self._templates = settings, templates
        self.chosen: list[Question] = []
        for place in epoch_order(seed, 0, len(pairs)):
            request, reference = pairs[int(place)]
            prompt = templates.prompt(request)
            if len(prompt) < context:
                self.chosen.append(Question(request, self._text(templates.answer(reference)), prompt))
            if len(self.chosen) == settings.measured:
                break

    def ask(self, model: GPT, *, bf16: bool, count: int | None = None, base: bool = False) -> list[str]:
        """The model's greedy answers to the first `count` of them (None: all). `base`: it is the model before tuning, whose answers
        end where serving ends them."""
        prompts = [question.prompt for question in self.chosen[:count]]
        answers = greedy_answers(model, prompts, self.settings.max_tokens, bf16=bf16)
        stops = self._templates.base_stops if base else ()
        return [
            self._text(ids, () if isinstance(question.request, Raw) else stops)
            for question, ids in zip(self.chosen, answers, strict=False)
        ]

    def overlap(self, answers: Sequence[str]) -> list[Figure]:
        """What answers to all of them have of the references."""
        return overlap_figures(answers, [question.reference for question in self.chosen], self.settings.max_tokens)

    def samples(self, model: GPT, *, bf16: bool) -> list[str]:
        """A few requests and answers, as texts to watch a run by."""
        answers = self.ask(model, bf16=bf16, count=self.settings.shown)
        return [f"{q.request.shown}\n=> {answer}" for q, answer in zip(self.chosen, answers, strict=False)]

    def _text(self, ids: Sequence[int], stops: Sequence[str] = ()) -> str:
        return until(self._templates.tokenizer.decode(ids, skip_special=True), stops).strip()
