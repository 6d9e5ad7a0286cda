from typing import Any

import pytest

from training.data.dialogues import (
    Chat,
    Dialogue,
    Fields,
    Instruction,
    Preference,
    Raw,
    Turn,
    read_dialogue,
    read_preference,
)
from training.data.tables import Row
from training.errors import DataError

WHERE = "rows.jsonl, line 3"


def dialogue(values: dict[str, Any], **fields: str) -> Dialogue:
    return read_dialogue(Row(values, WHERE), Fields(**fields))


def preference(values: dict[str, Any], **fields: str) -> Preference:
    return read_preference(Row(values, WHERE), Fields(**fields))


def test_formats_are_told_apart_by_their_columns() -> None:
    assert dialogue({"instruction": " Add. ", "input": "1 + 2\n", "output": "3"}).turns == (
        Turn(Instruction("Add.", "1 + 2"), "3"),
    )
    assert dialogue({"instruction": "Go", "input": None, "system": "Be kind.", "output": "ok"}).turns == (
        Turn(Instruction("Go", "", "Be kind."), "ok"),
    )
    # As they stand: white space in front of a completion is what parts it from the prompt.
    assert dialogue({"prompt": "Q: why?\nA:", "completion": " So.\n"}).turns == (Turn(Raw("Q: why?\nA:"), " So."),)
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello "}]
    assert dialogue({"messages": messages, "prompt": "Hi"}).turns == (Turn(Chat((("user", "Hi"),)), "Hello"),)
    sharegpt = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    assert dialogue({"conversations": sharegpt}).turns == (Turn(Chat((("user", "Hi"),)), "Hello"),)


def test_every_assistant_turn_is_one_to_learn() -> None:
    contents = [("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", " "), ("user", "d")]
    messages = [{"role": role, "content": text} for role, text in [*contents, ("assistant", "e")]]
    first, second = dialogue({"messages": messages}).turns
    assert first == Turn(Chat((("system", "S"), ("user", "a"))), "b")
    assert isinstance(second.request, Chat)
    assert (len(second.request.messages), second.answer) == (6, "e")  # the empty answer is not learned
    assert dialogue({"messages": messages}).left_out == 1
    unasked, waiting = [{"role": "assistant", "content": "x"}], [{"role": "user", "content": "f"}]
    assert dialogue({"messages": [*unasked, *messages[1:], *waiting]}).left_out == 3
    assert dialogue({"messages": messages[:3]}).left_out == 0


def test_fields_may_have_other_names() -> None:
    row = {"question": "Who?", "section": "A man.", "answer": "He."}
    fields = {"instruction": "question", "input": "section", "output": "answer"}
    assert dialogue(row, **fields).turns == (Turn(Instruction("Who?", "A man."), "He."),)
    assert dialogue({"prompt": "Who?", "response": "He."}, instruction="prompt", output="response").turns == (
        Turn(Instruction("Who?"), "He."),
    )


def test_rows_without_an_answer_are_empty() -> None:
    assert not dialogue({"instruction": "Go", "output": " "}).turns
    assert not dialogue({"prompt": "Go", "completion": ""}).turns
    assert not dialogue({"messages": [{"role": "user", "content": "Hi"}]}).turns


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text": "x"}, r"none of the fields 'messages', 'instruction' or 'prompt', but 'text'"),
        ({"instruction": "x"}, "no field 'output'"),
        ({"instruction": "x", "output": None}, "'output' must be a text, found null"),
        ({"instruction": "x", "input": ["a"], "output": "y"}, "'input' must be a text, found a list"),
        ({"messages": "Hi"}, "'messages' must be a list of messages, found a text"),
        ({"messages": []}, "'messages' must be a list of messages"),
        ({"messages": ["Hi"]}, r"messages\[0\]: must be an object with role and content, found a text"),
        ({"messages": [{"role": "tool", "content": "x"}]}, r"messages\[0\]: its role is 'tool'"),
        ({"messages": [{"role": "user", "content": None}]}, r"messages\[0\]: its content must be a text, found null"),
    ],
)
def test_rows_that_cannot_be_used_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"rows\.jsonl, line 3.*{message}"):
        dialogue(values)


def test_preferences_in_their_formats() -> None:
    answers = {"chosen": "Good. ", "rejected": "Bad."}
    row = {"instruction": "Go", "input": "far", "output": "Good.", **answers}
    assert preference(row) == Preference(Instruction("Go", "far"), "Good.", "Bad.", WHERE)
    assert preference({"prompt": "Q:", **answers}) == Preference(Raw("Q:"), "Good.", "Bad.", WHERE)
    user = {"role": "user", "content": "Hi"}
    good, bad = ({"role": "assistant", "content": text} for text in ("Hello", "What?"))
    expected = Preference(Chat((("user", "Hi"),)), "Hello", "What?", WHERE)
    assert preference({"prompt": [user], "chosen": [good], "rejected": [bad]}) == expected
    assert preference({"chosen": [user, good], "rejected": [user, bad]}) == expected
    assert preference({"prompt": "Hi", "chosen": [user, good], "rejected": [user, bad]}) == expected
    assert preference({"prompt": "Hi", "chosen": [good], "rejected": [bad]}) == expected
    assert preference({"prompt": "Hi", "chosen": [good], "rejected": "What?"}) == expected
    assert preference({"prompt": [user], "chosen": [user, good], "rejected": [bad]}) == expected
    other = {"role": "user", "content": "Bye"}
    for different in (
        {"chosen": [user, good], "rejected": [other, bad]},
        {"prompt": "Hi", "chosen": [user, good], "rejected": [other, bad]},
        {"prompt": [user], "chosen": [other, good], "rejected": [other, bad]},
    ):
        with pytest.raises(DataError, match=r"line 3: '\w+' and '\w+' are of different requests"):
            preference(different)
    with pytest.raises(DataError, match="none of the fields 'instruction' or 'prompt'"):  # no request at all
        preference({"chosen": [good], "rejected": [bad]})
    with pytest.raises(DataError, match="'rejected'"):
        preference({"prompt": "Q:", "chosen": "x"})
    with pytest.raises(DataError, match="last message of 'chosen' must be the assistant's"):
        preference({"chosen": [user], "rejected": [user, bad]})
    with pytest.raises(DataError, match="none of the fields 'instruction' or 'prompt'"):
        preference(answers)
