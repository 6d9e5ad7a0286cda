import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.architectures import read_config
from model.errors import ConfigError
from model.prompts import PLAIN_CHAT_TEMPLATE, InstructionTemplate, PromptTemplate
from model.tokenizer import Tokenizer
from training.data.dialogues import Chat, Dialogue, Instruction, Raw, Turn
from training.errors import DataError
from training.templates import Templates, choose_templates

BASE = Path(__file__).parents[2] / "checkpoints" / "homegrown-base"  # a base model: no templates, one special token
TOKENIZER = Tokenizer.from_directory(BASE)
CONFIG = read_config(BASE)
END = 0
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(str.strip)


@cache
def choose(base: Path = BASE, family: str = "auto", *, instructions: bool = False, chats: bool = False) -> Templates:
    return choose_templates(base, TOKENIZER, CONFIG, family, instructions=instructions, chats=chats)  # type: ignore[arg-type]


def test_stops_of_the_base_are_those_that_serving_uses() -> None:
    served = InstructionTemplate.from_directory(BASE).stops, PromptTemplate.from_directory(BASE).stops
    assert all(served)
    assert (choose(instructions=True).base_stops, choose(chats=True).base_stops) == served
    assert choose().base_stops == ()  # texts that go on as they stand


def exported(templates: Templates, directory: Path) -> Path:
    """What a run's export writes of templates and tokenizer."""
    TOKENIZER.save(directory)
    for name, text in templates.files.items():
        (directory / name).write_text(text, "utf-8")
    return directory


def learned(tokens: list[int], counted: list[bool]) -> str:
    return TOKENIZER.decode([token for token, counts in zip(tokens, counted, strict=True) if counts])


@pytest.fixture(scope="module")
def served_directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        family: exported(choose(BASE, family), tmp_path_factory.mktemp(family)) for family in ("alpaca", "transcript")
    }


@pytest.mark.parametrize("family", ["alpaca", "transcript"])
@given(instruction=texts, input=texts, system=texts)
def test_training_prompts_are_those_of_the_exported_directory(
    served_directories: dict[str, Path], family: str, instruction: str, input: str, system: str
) -> None:
    templates, directory = choose(BASE, family), served_directories[family]
    request = Instruction(instruction, input, system)
    served = InstructionTemplate.from_directory(directory)
    assert templates.prompt(request) == served.encode(TOKENIZER, instruction, input, system)
    assert served.stops == ()  # the model ends its answers itself
    chat = PromptTemplate.from_directory(directory)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": instruction}]
    assert templates.prompt(Chat((("system", system), ("user", instruction)))) == chat.encode(messages, TOKENIZER)
    assert chat.stops == ()
    if system:  # both roads lead to one prompt
        assert chat.encode(messages, TOKENIZER) == served.encode(TOKENIZER, instruction, "", system)
    assert chat.encode(messages[1:], TOKENIZER) == served.encode(TOKENIZER, instruction)


def test_the_transcript_is_the_one_base_models_are_asked_with() -> None:
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": " a "}]
    templates = choose(chats=True)
    assert templates.chat.render(messages) == PromptTemplate(PLAIN_CHAT_TEMPLATE).render(messages)
    assert not templates.chat.plain


@pytest.mark.parametrize("family", ["alpaca", "transcript"])
def test_other_libraries_make_the_same_prompts(served_directories: dict[str, Path], family: str) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(served_directories[family])
    turns = [("system", "Be kind."), ("user", " Hi, you "), ("assistant", "Hello!"), ("user", "Bye")]
    for first in (0, 1):
        messages = [{"role": role, "content": text} for role, text in turns[first:]]
        ids = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert ids == PromptTemplate.from_directory(served_directories[family]).encode(messages, TOKENIZER)


@pytest.mark.parametrize("family", ["alpaca", "transcript"])
def test_all_turns_of_a_chat_share_one_example(family: str) -> None:
    templates = choose(BASE, family)
    messages = (("user", "Hi"), ("assistant", "Hello there."), ("user", "Bye"))
    row = Dialogue((Turn(Chat(messages[:1]), "Hello there."), Turn(Chat(messages), "Farewell")), "row")
    (example,) = templates.examples(row)
    tokens, counted = example.tokens.tolist(), example.counted.tolist()
    assert learned(tokens, counted) == "Hello there.<|endoftext|>Farewell<|endoftext|>"
    prompt = templates.prompt(Chat(messages))
    assert tokens[: len(prompt)] == prompt
    first = templates.prompt(Chat(messages[:1]))
    assert counted.index(True) == len(first)


def test_a_template_that_rewrites_earlier_answers_gets_an_example_a_turn(tmp_path: Path) -> None:
    own = exported(choose(), tmp_path)
    (own / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content | upper }}|{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    templates = choose(own)
    messages = (("user", "hi"), ("assistant", "hello"), ("user", "bye"))
    row = Dialogue((Turn(Chat(messages[:1]), "hello"), Turn(Chat(messages), "so long")), "row")
    examples = list(templates.examples(row))
    assert [TOKENIZER.decode(e.tokens.tolist()) for e in examples] == [
        "HI|>hello<|endoftext|>",
        "HI|HELLO|BYE|>so long<|endoftext|>",
    ]
    assert [learned(e.tokens.tolist(), e.counted.tolist()) for e in examples] == [
        "hello<|endoftext|>",
        "so long<|endoftext|>",
    ]


def test_a_base_with_its_own_template_keeps_it_and_its_end_of_turn(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    size = TOKENIZER.vocab_size
    data = json.loads((tmp_path / "tokenizer.json").read_text())
    data["added_tokens"] += [
        {**data["added_tokens"][0], "id": size + i, "content": content}
        for i, content in enumerate(["<|im_start|>", "<|im_end|>"])
    ]
    tokenizer = Tokenizer.from_json(data, {"eos_token": "<|endoftext|>"}, source="test")
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    config = replace(CONFIG, vocab_size=size + 64, eos_token_ids=(0, size + 1))
    templates = choose_templates(tmp_path, tokenizer, config, "auto", instructions=True, chats=False)
    assert templates.files == {"chat_template.jinja": CHATML}
    assert templates.end == size + 1
    (example,) = templates.examples(Dialogue((Turn(Instruction("Go", "far"), "ok<|im_end|>"),), "row"))
    text = "<|im_start|>user\nGo\n\nfar<|im_end|>\n<|im_start|>assistant\nok<|im_end|>"
    assert tokenizer.decode(example.tokens.tolist()) == text


def test_the_family_follows_from_the_rows() -> None:
    assert "### Instruction:" in choose(instructions=True, chats=True).files["chat_template.jinja"]
    assert "capitalize" in choose(chats=True).files["chat_template.jinja"]
    assert choose().files == {}


def test_plain_texts_stand_as_they_are_and_special_tokens_in_rows_stay_text() -> None:
    templates = choose()
    (example,) = templates.examples(Dialogue((Turn(Raw("Q: 2?\nA:"), " 4<|endoftext|>"),), "row"))
    assert TOKENIZER.decode(example.tokens.tolist()) == "Q: 2?\nA: 4<|endoftext|>"
    assert example.tokens.tolist().count(END) == 1
    templates = choose(BASE, "alpaca")
    (example,) = templates.examples(Dialogue((Turn(Instruction("Say <|endoftext|>"), "It is <|endoftext|>!"),), "row"))
    assert example.tokens.tolist().count(END) == 1
    assert TOKENIZER.decode(example.tokens.tolist()).endswith("It is <|endoftext|>!<|endoftext|>")


def test_bos_stands_in_front_where_the_tokenizer_wants_it(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    config = (tmp_path / "tokenizer_config.json").read_text().replace("{", '{"add_bos_token": true,', 1)
    (tmp_path / "tokenizer_config.json").write_text(config)
    (tmp_path / "config.json").write_text((BASE / "config.json").read_text())
    tokenizer = Tokenizer.from_directory(tmp_path)
    for family in ("alpaca", "transcript"):
        templates = choose_templates(tmp_path, tokenizer, CONFIG, family, instructions=True, chats=False)
        prompt = templates.prompt(Instruction("Go"))
        assert prompt[0] == END
        assert prompt[1] != END
        assert templates.prompt(Chat((("user", "Go"),))) == prompt


def test_what_a_template_refuses_is_named_by_its_row() -> None:
    row = Dialogue((Turn(Chat((("user", "a"), ("system", "b"))), "c"),), "rows.json, row 7")
    with pytest.raises(DataError, match=r"rows\.json, row 7: .*only the first message may have the role system"):
        list(choose(BASE, "alpaca").examples(row))


def test_a_model_that_could_not_end_an_answer_is_refused() -> None:
    with pytest.raises(ConfigError, match="no token that ends an answer"):
        choose_templates(BASE, TOKENIZER, replace(CONFIG, eos_token_ids=()), "auto", instructions=True, chats=False)
