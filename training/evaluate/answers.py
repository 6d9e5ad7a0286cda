"""Instruction data: how likely the reference answers are, and what the model's own answers have of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from model.errors import ConfigError
from model.prompts import InstructionTemplate, PromptError, PromptTemplate
from training.answering import greedy_answers
from training.data.dialogues import Chat, Dialogue, Fields, Instruction, Turn, read_dialogue
from training.data.tables import Row, read_rows
from training.errors import DataError
from training.evaluate.overlap import exact_match, rouge_l, token_f1
from training.evaluate.results import Baseline, Figure, Result, mean_figure, share_figure
from training.evaluate.scoring import Request
from training.evaluate.subject import Options, Subject, drawn, nothing_left
from training.templates import Templates, choose_templates

MATCH, F1, ROUGE, ENDED = "exact match", "token F1", "ROUGE-L", "ended by itself"
_SHOWN = 5


@dataclass(frozen=True)
class Placed:
    """A request with its reference answer, and where its row stands ("answers.jsonl, line 12")."""

    turn: Turn
    where: str


@dataclass(frozen=True)
class _Asked:
    """A turn with its token ids."""

    turn: Turn
    prompt: list[int]
    reference: list[int]
    stops: Sequence[str]  # texts that end an answer under a template whose model doesn't know when to end


def evaluate_answers(subject: Subject, path: Path | str, options: Options) -> Result:
    """Loss of the reference answers, overlap of greedy answers with them, and how many of those end by themselves, over all turns
    of the rows. `details` has some requests with both answers, drawn by the seed."""
    model, scorer = subject.language_model, subject.scorer()
    turns, notes = read_turns(path, options)
    chosen = drawn(turns, options)
    asked = _encode(subject, chosen, path, options, notes)
    context = model.config.context_length
    scores = scorer.score([Request(a.prompt, a.reference) for a in asked], share=False, desc="reference answers")
    nats = -np.array([scored.total for scored in scores])
    n_tokens = sum(len(a.reference) for a in asked)
    prompts = [a.prompt[-(context - options.max_tokens) :] for a in asked]
    with scorer.bar(len(prompts), "answers") as bar:
        written = greedy_answers(model, prompts, options.max_tokens, bf16=subject.bf16, done=bar.update)
    answers = [_text(subject, ids, a.stops) for ids, a in zip(written, asked, strict=True)]
    ended = [
        len(ids) < min(options.max_tokens, context - len(prompt)) or _stopped(subject, ids, a.stops)
        for ids, prompt, a in zip(written, prompts, asked, strict=True)
    ]
    references = [_text(subject, a.reference) for a in asked]
    figures = [
        Figure(
            "answer loss",
            float(nats.sum()) / n_tokens,
            f"nats a token of the reference answers ({n_tokens:,} tokens, each answer's end token too) behind the prompts, in the "
            "template that serving uses; the prompts' tokens are not counted",
        ),
        *overlap_figures(answers, references, options.max_tokens),
        share_figure(
            ENDED,
            ended,
            f"the answer has an end token within its {options.max_tokens} tokens, or, of a model without a template, what ends its "
            "answers when it is served",
        ),
    ]
    total = len(turns) - (len(chosen) - len(asked))  # those known to be too long are none that a limit leaves out
    result = Result("answers", str(path), len(asked), total, "answers", figures, notes=notes)
    result.baselines.append(_lead(asked, references))
    result.details["examples"] = [
        {"request": asked[i].turn.request.shown, "reference": references[i], "answer": answers[i]}
        for i in sorted(np.random.default_rng(options.seed).permutation(len(asked))[:_SHOWN].tolist())
    ]
    return result


def read_turns(path: Path | str, options: Options) -> tuple[list[Placed], list[str]]:
    """The requests with reference answers that a file holds, and a note of the rows that have none. DataError names the row that
    can't be used, or says that no row has an answer."""
    fields, turns, empty, n_rows = answer_fields(options), [], 0, 0
    for row in read_rows([path], columns=options.columns):
        found = _dialogue(row, fields).turns
        turns += [Placed(turn, row.where) for turn in found]
        empty += not found
        n_rows += 1
    if not turns:
        raise DataError(f"{path}: no row has an answer to compare with")
    return turns, [f"left out: {empty:,} of {n_rows:,} rows, which have no answer"] if empty else []


def answer_fields(options: Options) -> Fields:
    """Where a row's request and answer stand. ConfigError for a name that no format has."""
    for name, _ in options.fields:
        if name not in Fields.model_fields:
            raise ConfigError(f"--field {name}: there is no such field; there are {', '.join(Fields.model_fields)}")
    return Fields(**dict(options.fields))


def answer_columns(options: Options) -> set[str]:
    """Columns that only rows with answers have."""
    fields = answer_fields(options)
    return {fields.instruction, fields.completion, fields.messages, "conversations"}


def _dialogue(row: Row, fields: Fields) -> Dialogue:
    wanted = (fields.messages, "conversations", fields.instruction, fields.prompt)
    if not any(name in row.values for name in wanted):
        there = ", ".join(map(repr, row.values)) or "none"
        raise DataError(
            f"{row.where}: has none of the fields {', '.join(map(repr, wanted))}, but {there}; name its columns, as "
            "--field instruction=COLUMN --field output=COLUMN"
        )
    return read_dialogue(row, fields)


def overlap_figures(answers: Sequence[str], references: Sequence[str], max_tokens: int) -> list[Figure]:
    """Exact match, token F1 and ROUGE-L of answers against references."""
    pairs = list(zip(answers, references, strict=True))
    greedy = f"greedy answers of at most {max_tokens} tokens"
    return [
        share_figure(
            MATCH,
            [exact_match(*pair) for pair in pairs],
            f"{greedy}, the same as the reference in lower case without punctuation and articles (SQuAD)",
        ),
        mean_figure(F1, np.array([token_f1(*pair) for pair in pairs]), "mean F1 of the same words (SQuAD)", share=True),
        mean_figure(
            ROUGE,
            np.array([rouge_l(*pair) for pair in pairs]),
            "mean F1 of the longest common subsequence of words, without stemming (Lin, 2004)",
            share=True,
        ),
    ]


def _encode(
    subject: Subject, turns: Sequence[Placed], path: Path | str, options: Options, notes: list[str]
) -> list[_Asked]:
    """The turns that can be scored; `notes` is told what was cut or left out."""
    context = subject.model.config.context_length
    if not 1 <= options.max_tokens < context:
        raise ConfigError(
            f"max_tokens must be from 1 to {context - 1}, below the model's context, not {options.max_tokens}"
        )
    templates = served_templates(subject)
    asked = [_asked(templates, placed) for placed in turns]
    fitting = [a for a in asked if len(a.reference) <= context]
    if len(fitting) < len(asked):
        notes.append(
            f"left out: {len(asked) - len(fitting):,} answers longer than the model's context of {context} tokens"
        )
    if not fitting:
        raise nothing_left(path, f"every answer is longer than the model's context of {context} tokens")
    cut = sum(len(a.prompt) > context - options.max_tokens for a in fitting)
    if cut:
        notes.append(f"{cut:,} prompts lost their beginning, so that the answer fits the context of {context} tokens")
    return fitting


def _asked(templates: Templates, placed: Placed) -> _Asked:
    turn = placed.turn
    try:
        prompt = templates.prompt(turn.request)
    except PromptError as error:
        raise DataError(f"{placed.where}: {error}") from None
    return _Asked(turn, prompt, templates.answer(turn.answer), _stops(templates, turn))


def served_templates(subject: Subject) -> Templates:
    """The templates that the model's directory is served with, and the stops that end the answers of a model without any."""
    own = choose_templates(
        subject.directory, subject.tokenizer, subject.model.config, "auto", instructions=False, chats=False
    )
    return replace(
        own,
        chat=PromptTemplate.from_directory(subject.directory),
        instruction=InstructionTemplate.from_directory(subject.directory),
    )


def _stops(templates: Templates, turn: Turn) -> Sequence[str]:
    if isinstance(turn.request, Instruction):
        return templates.instruction.stops
    return templates.chat.stops if isinstance(turn.request, Chat) else ()


def _stopped(subject: Subject, ids: Sequence[int], stops: Sequence[str]) -> bool:
    """Whether one of `stops` is in what was written."""
    text = subject.tokenizer.decode(ids, skip_special=True)
    return any(stop in text for stop in stops)


def _text(subject: Subject, ids: Sequence[int], stops: Sequence[str] = ()) -> str:
    """Tokens as an answer's text, up to the first stop."""
    text = subject.tokenizer.decode(ids, skip_special=True)
    for stop in stops:
        text = text.partition(stop)[0]
    return text.strip()


def _lead(asked: Sequence[_Asked], references: Sequence[str]) -> Baseline:
    """The first sentence of what the request came with, as the answer."""
    answers = [re.split(r"(?<=[.!?])\s", _source(a.turn).strip(), maxsplit=1)[0] for a in asked]
    return Baseline.of(
        "first sentence",
        overlap_figures(answers, references, 0),
        "the first sentence of the row's input, or of the request where it has none, or of a chat's last message, drawn as the "
        "answer",
    )


def _source(turn: Turn) -> str:
    request = turn.request
    if isinstance(request, Chat):
        return request.messages[-1][1]
    return request.input if isinstance(request, Instruction) and request.input else request.shown
