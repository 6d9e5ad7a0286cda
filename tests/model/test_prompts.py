"""Prompt templates: the same text and ids as transformers' apply_chat_template, and nothing that a user can inject."""

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Reference
from tokenizers import models, normalizers, pre_tokenizers, trainers

from model.errors import HomegrownError
from model.prompts import (
    ALPACA_STOPS,
    PLAIN_STOPS,
    InstructionTemplate,
    PromptError,
    PromptTemplate,
    instruction_messages,
)
from model.tokenizer import Tokenizer

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<|eot|>", "[INST]", "[/INST]", "☃"]
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = {
    "chatml": CHATML,
    "trimmed, with bos": (
        "{{ bos_token }}\n{% for message in messages %}\n"
        "    {%- if message.role == 'system' %}{{ '☃' ~ message.content | trim ~ '<|eot|>' }}\n"
        "    {%- else %}\n{{ '<s>' + message['role'] + '</s>\n\n' + (message['content'] | trim) + eos_token }}\n"
        "    {%- endif %}\n{%- endfor %}\n{% if add_generation_prompt %}{{ '<s>assistant</s>\n\n' }}{% endif %}\n"
    ),
    "strict alternation": (
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        "{% set system = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% endif %}"
        "{% for message in loop_messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate user/assistant') }}{% endif %}"
        "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' }}"
        "{% if loop.first and system is defined %}{{ system + '\\n\\n' }}{% endif %}"
        "{{ message['content'] + ' [/INST]' }}"
        "{% else %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "namespace, break, generation, tojson": (
        "{% set ns = namespace(seen=0, last='') %}\n{% for message in messages %}\n"
        "    {% if message.role == 'tool' %}{% continue %}{% endif %}\n"
        "    {% set ns.seen = ns.seen + 1 %}\n"
        "    {% if message.role == 'assistant' %}{% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}\n"
        "    {% else %}<|im_start|>{{ {'role': message.role, 'text': message.content, 'html': '<&>'} | tojson }}\n"
        "    {% endif %}\n{% endfor %}\n"
        "{% if tools is not none or documents %}never{% endif %}{{ ns.seen }}{{ undefined_thing }}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    ),
    "macro": (
        "{% macro turn(m) -%}<|im_start|>{{ m.role | upper }}: {{ m.content }}<|im_end|>{%- endmacro %}"
        "{% for m in messages %}{{ turn(m) }}{{ '\n' if not loop.last }}{% endfor %}"
        "{{ '<|im_start|>ASSISTANT:' if add_generation_prompt }}"
    ),
}
CONVERSATION = [
    {"role": "system", "content": "Be brief. "},
    {"role": "user", "content": " What is 2 + 2?\n"},
    {"role": "assistant", "content": " It's 4, naïve 中文 🙂 "},
    {"role": "user", "content": "  > quoted < and\n\tmore | "},
]


def _reference(*, normalizer: Any = None) -> Reference:
    reference = Reference(models.BPE())
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if normalizer is not None:
        reference.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    reference.train_from_iterator(
        [str(CONVERSATION), "You help. <|im_start|> im_end assistant user system"] * 3, trainer
    )
    reference.add_tokens(["<think>"])
    return reference


CONFIG = {"bos_token": "<s>", "eos_token": "<|im_end|>"}


@pytest.fixture(scope="module")
def pair():
    """Ours and transformers' tokenizer from one file."""
    from transformers import PreTrainedTokenizerFast

    reference = _reference()
    ours = Tokenizer.from_json(json.loads(reference.to_str()), CONFIG, source="test")
    return ours, PreTrainedTokenizerFast(tokenizer_object=reference, **CONFIG)


def _theirs(tokenizer: Any, template: str, messages: list[dict[str, str]], **options: Any) -> tuple[str, list[int]]:
    text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options)
    ids = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=True, return_dict=False, **options)
    return text, ids


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize("mode", ["prompt", "bare", "continue"])
def test_equal_to_transformers(pair, name: str, length: int, mode: str):
    ours, theirs = pair
    template = PromptTemplate(TEMPLATES[name], tokens=CONFIG)
    options = {"add_generation_prompt": mode == "prompt", "continue_final_message": mode == "continue"}
    for messages in (CONVERSATION[:length], CONVERSATION[1 : 1 + length]):
        try:
            text, ids = _theirs(theirs, TEMPLATES[name], messages, **options)
        except Exception:
            with pytest.raises(PromptError):
                template.render(messages, **options)
            continue
        assert template.render(messages, **options) == text
        assert template.encode(messages, ours, **options) == ids


@settings(max_examples=200, deadline=None)
@given(
    contents=st.lists(st.text(max_size=20) | st.text("<|im_endstar>[/INST] \n", max_size=20), min_size=1, max_size=4),
    name=st.sampled_from([name for name in TEMPLATES if name != "strict alternation"]),
    go_on=st.booleans(),
)
def test_benign_texts_give_transformers_ids(pair, contents: list[str], name: str, go_on: bool):
    ours, theirs = pair
    if any(token in "\0".join(contents) for token in SPECIAL):
        return
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(contents)]
    options = {"add_generation_prompt": not go_on, "continue_final_message": go_on}
    template = PromptTemplate(TEMPLATES[name], tokens=CONFIG)
    try:
        text, ids = _theirs(theirs, TEMPLATES[name], messages, **options)
    except ValueError:  # the template changes the last message (as JSON), so that it can't be continued
        with pytest.raises(PromptError, match="can't be continued"):
            template.render(messages, **options)
        return
    assert template.render(messages, **options) == text
    if len([n for n in ids if ours.is_special(n)]) == len(_special_of(ours, template, len(messages), options)):
        assert template.encode(messages, ours, **options) == ids


def _special_of(tokenizer: Tokenizer, template: PromptTemplate, n_messages: int, options: dict[str, bool]) -> list[int]:
    """The special tokens that the template itself writes, seen with a harmless content."""
    messages = [{"role": ("user", "assistant")[n % 2], "content": "x"} for n in range(n_messages)]
    return [token for token in template.encode(messages, tokenizer, **options) if tokenizer.is_special(token)]


EVIL = st.lists(
    st.sampled_from([*SPECIAL, *(token[:3] for token in SPECIAL), *(token[2:] for token in SPECIAL), " ", "\n", "x",
                     "<|IM_END|>", "<|im_e", "nd|>", "|im_end|>", "<", ">", "|", "<<|im_end|>", "☃☃", "\U000f0000"]),
    max_size=6,
).map("".join)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    contents=st.lists(EVIL, min_size=1, max_size=4),
    name=st.sampled_from([name for name in TEMPLATES if name != "strict alternation"]),
    go_on=st.booleans(),
)
def test_no_text_becomes_a_special_token(pair, contents: list[str], name: str, go_on: bool):
    ours, _ = pair
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(contents)]
    options = {"add_generation_prompt": not go_on, "continue_final_message": go_on}
    template = PromptTemplate(TEMPLATES[name], tokens=CONFIG)
    if go_on and "tojson" in name and "\n" in contents[-1]:
        return  # written as JSON, the message is changed, and can't be continued
    ids = template.encode(messages, ours, **options)
    assert [token for token in ids if ours.is_special(token)] == _special_of(ours, template, len(messages), options)
    assert ours.decode(ids) == template.render(messages, **options)  # and not a character is lost


LOOSE = {
    "the template begins, the text ends it": "<|im_{{ messages[0].content }}",
    "the text begins, the template ends it": "{{ messages[0].content }}_end|>",
    "the text is the middle": "<|{{ messages[0].content }}d|>",
    "two texts": "{{ messages[0].content }}{{ messages[1].content }}",
    "case": "{{ messages[0].content | lower }}",
}


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("the template begins, the text ends it", ["end|>"]),
        ("the text begins, the template ends it", ["<|im"]),
        ("the text is the middle", ["im_en"]),
        ("two texts", ["<|im_", "end|>"]),
        ("case", ["<|IM_END|>"]),
        ("case", ["<|Im_StArT|>"]),
    ],
)
def test_a_special_token_is_not_put_together(pair, name: str, contents: list[str]):
    ours, _ = pair
    messages = [{"role": "user", "content": text} for text in contents]
    template = PromptTemplate(LOOSE[name])
    ids = template.encode(messages, ours)
    assert not any(ours.is_special(token) for token in ids)
    assert ours.decode(ids) == template.render(messages)


def test_added_tokens_that_are_not_special_stay_what_they_are(pair):
    ours, theirs = pair
    messages = [{"role": "user", "content": "a<think>b"}]
    ids = PromptTemplate(CHATML).encode(messages, ours)
    assert theirs.convert_tokens_to_ids("<think>") in ids
    assert ids == _theirs(theirs, CHATML, messages, add_generation_prompt=True)[1]


def test_normalized_text_keeps_the_disguise():
    reference = _reference(normalizer=normalizers.NFKC())
    ours = Tokenizer.from_json(json.loads(reference.to_str()), CONFIG, source="test")
    messages = [{"role": "user", "content": "＜|im_end|＞ <|im_end|> ﬁ"}]  # full-width brackets become ASCII by NFKC
    template = PromptTemplate(CHATML)
    special = [token for token in template.encode(messages, ours) if ours.is_special(token)]
    assert special == _special_of(ours, template, 1, {})


def test_a_long_text_is_disguised_in_time(pair):
    ours, _ = pair
    text = "<|im_end|>" * 50_000 + "<" * 500_000
    ids = PromptTemplate(CHATML).encode([{"role": "user", "content": text}], ours)
    assert len([token for token in ids if ours.is_special(token)]) == 5


HANGS = {
    "one huge range": "{% for i in range(10 ** 9) %}{% endfor %}",
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops that write": "{% for i in range(99999) %}{% for j in range(99999) %}{{ 'x' * 1000 }}{% endfor %}{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "branching recursion": "{% macro f(n) %}{{ f(n - 1) }}{{ f(n - 1) if n }}{% endmacro %}{{ f(60) }}",
    "a product": "{{ 'x' * 10 ** 12 }}",
    "a power": "{{ 10 ** (10 ** 9) }}",
    "doubling": "{% set ns = namespace(t='ab') %}{% for i in range(99) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
    "doubling by +": "{% set ns = namespace(t='ab') %}{% for i in range(99) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
    "an infinite iterator": "{% set c = cycler('a') %}{% for i in range(99999) %}{% for j in range(99) %}{{ c.next() }}"
    "{% endfor %}{% endfor %}",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HANGS)
def test_a_template_without_end_is_an_error(name: str):
    template = PromptTemplate(HANGS[name], source="evil.jinja")
    with pytest.raises(PromptError, match=r"^evil\.jinja: "):
        template.render(CONVERSATION)


def test_the_time_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("model.template_sandbox.MAX_SECONDS", 0.05)
    slow = "{% for i in range(99999) %}{% set x = range(20000) | list | length %}{% endfor %}"
    with pytest.raises(PromptError, match=r"takes more than 0\.05 s"):
        PromptTemplate(slow).render(CONVERSATION)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{{ messages[0].nothing.at_all }}", "no attribute 'nothing'"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[0].content.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ cycler.__init__.__globals__ }}", "unsafe"),
        ("{% include 'other' %}", "loader"),
    ],
)
def test_errors_in_a_template_are_named(text: str, problem: str):
    with pytest.raises(PromptError, match=f"^chat_template.jinja: .*{re.escape(problem)}") as error:
        PromptTemplate(text).render(CONVERSATION)
    assert isinstance(error.value, HomegrownError)


def test_a_template_that_is_none_is_refused_with_its_line(tmp_path: Path):
    (tmp_path / "chat_template.jinja").write_text("fine\n{% for x in %}\n")
    with pytest.raises(PromptError, match=r"chat_template\.jinja: line 2: "):
        PromptTemplate.from_directory(tmp_path)


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "messages: must not be empty"),
        ([{"content": "x"}], r"messages\[0\]\.role: must be a word"),
        ([{"role": "<|im_end|>", "content": "x"}], r"messages\[0\]\.role: must be a word"),
        ([{"role": "user"}], r"messages\[0\]\.content: must be a text"),
        ([{"role": "user", "content": None}], r"messages\[0\]\.content: must be a text"),
        ([{"role": "user", "content": "x", "name": 3}], r"messages\[0\]\.name: must be a text"),
    ],
)
def test_messages_are_checked(messages: list[Any], problem: str):
    with pytest.raises(PromptError, match=problem):
        PromptTemplate(CHATML).render(messages)


def test_a_message_that_the_template_changes_cannot_be_continued():
    with pytest.raises(PromptError, match="can't be continued"):
        PromptTemplate("{{ messages[0].content | upper }}").render(
            [{"role": "assistant", "content": "abc"}], continue_final_message=True
        )


def test_where_the_template_comes_from(tmp_path: Path, pair):
    ours, _ = pair
    user = [{"role": "user", "content": "Hi"}]
    assert PromptTemplate.from_directory(tmp_path).plain
    config: dict[str, object] = {**CONFIG, "chat_template": "{{ bos_token }}config {{ eos_token }}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    template = PromptTemplate.from_directory(tmp_path)
    assert (template.render(user), template.plain, template.stops) == ("<s>config <|im_end|>", False, ())
    config["chat_template"] = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "named"}]
    config["bos_token"] = {"content": "<s>", "special": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert PromptTemplate.from_directory(tmp_path).render(user) == "named"
    PromptTemplate("{{ bos_token }}file").save(tmp_path)
    assert PromptTemplate.from_directory(tmp_path).render(user) == "<s>file"
    assert PromptTemplate.from_directory(tmp_path).encode(user, ours)[0] == ours.special_tokens["<s>"]


@pytest.mark.parametrize("value", [3, {"default": "x"}])
def test_a_template_of_the_wrong_kind_is_refused(tmp_path: Path, value: object):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
    with pytest.raises(HomegrownError, match="chat_template: expected a text"):
        PromptTemplate.from_directory(tmp_path)


def test_the_plain_template(tmp_path: Path):
    template = PromptTemplate.from_directory(tmp_path)
    assert template.render(CONVERSATION[:2]) == "System:\nBe brief.\n\nUser:\nWhat is 2 + 2?\n\nAssistant:\n"
    talk = template.render(CONVERSATION[1:3], continue_final_message=True)
    assert talk == "User:\nWhat is 2 + 2?\n\nAssistant:\nIt's 4, naïve 中文 🙂"
    assert template.stops == PLAIN_STOPS
    assert all(stop.startswith("\n\n") for stop in PLAIN_STOPS)
    tokenizer = Tokenizer.gpt2()
    ids = template.encode(CONVERSATION[:2], tokenizer)
    assert ids == tokenizer.encode(template.render(CONVERSATION[:2]))
    tokenizer.add_bos = True
    assert template.encode(CONVERSATION[:2], tokenizer) == [50256, *ids]


def test_alpaca(tmp_path: Path):
    template = InstructionTemplate.from_directory(tmp_path)
    assert template.render("Add.", "1 2") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n"
    )
    assert template.render("Add.") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Response:\n"
    )
    assert template.render("Add.", system="Be brief.").startswith("Be brief.\n\n### Instruction:\nAdd.\n\n### Resp")
    assert template.stops == ALPACA_STOPS
    tokenizer = Tokenizer.gpt2()
    ids = template.encode(tokenizer, "Add <|endoftext|>", "<|endoftext|>", "<|endoftext|>")
    assert 50256 not in ids
    assert tokenizer.decode(ids) == template.render("Add <|endoftext|>", "<|endoftext|>", "<|endoftext|>")


def test_the_instruction_template_of_a_checkpoint(tmp_path: Path, pair):
    ours, _ = pair
    PromptTemplate(CHATML).save(tmp_path)
    chat = InstructionTemplate.from_directory(tmp_path)
    expected = [{"role": "system", "content": "S"}, {"role": "user", "content": "Do\n\nthis"}]
    assert instruction_messages("Do", "this", "S") == expected
    assert chat.render("Do", "this", "S") == PromptTemplate(CHATML).render(expected)
    assert chat.encode(ours, "Do", "this", "S") == PromptTemplate(CHATML).encode(expected, ours)
    own = InstructionTemplate.from_text("{{ system }}<|im_start|>{{ instruction }}|{{ input }}<|im_end|>")
    own.save(tmp_path)
    loaded = InstructionTemplate.from_directory(tmp_path)
    assert loaded.render("Do", "this") == "<|im_start|>Do|this<|im_end|>"
    ids = loaded.encode(ours, "<|im_end|>", "|im_end|>", "<")
    assert [ours.decode([n]) for n in ids if ours.is_special(n)] == ["<|im_start|>", "<|im_end|>"]
    assert chat.stops == loaded.stops == ()


def test_threads_share_a_template(pair):
    ours, _ = pair
    template = PromptTemplate(CHATML)
    expected = template.encode(CONVERSATION, ours)
    results: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: results.extend(template.encode(CONVERSATION, ours) for _ in range(20)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 160
