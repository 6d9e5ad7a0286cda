"""checkpoints/: all or nothing, small enough, each part with its card, recipe and command."""

import json
from pathlib import Path

import pytest

from model.errors import CheckpointError
from training.models import publish as module
from training.models.figures import sizes
from training.models.places import ADAPTERS, BASE, Places
from training.models.publish import completed, publish
from training.models.steps import command_lines

MADE = {BASE: "homegrown pretrain a", "instruct": "homegrown finetune b", "sms-spam": "c", "sentiment": "d"}


def commands(places: Places) -> dict[str, str]:
    """Those of the course, but for short ones that make the models."""
    return command_lines(places) | MADE


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_base_and_adapters_come_together_with_cards_recipes_and_commands(places: Places) -> None:
    old = places.checkpoints / BASE
    old.mkdir(parents=True)
    (old / "of_the_old_model.txt").write_text("gone")
    target = publish(places, commands(places))
    there = files(target)
    assert "of_the_old_model.txt" not in there
    assert there["model.safetensors"] == b"weights of the base"
    for name in ADAPTERS:
        assert there[f"adapters/{name}/adapter_model.safetensors"] == b"weights of an adapter"
        assert json.loads(there[f"adapters/{name}/adapter_config.json"])["base_model_name_or_path"] == BASE
        assert there[f"adapters/{name}/recipe.toml"] == there["recipe.toml"] == b'name = "a recipe"\n'
        card = there[f"adapters/{name}/README.md"].decode()
        assert card.startswith(f'---\nbase_model: "{BASE}"\nlibrary_name: "peft"\n---\n# an adapter')
        assert f"```sh\n{MADE[name]}\n```" in card
        assert "## Evaluation" in card
    card = there["README.md"].decode()
    for part in (
        "5-gram",
        "CC BY",
        "OpenStax",
        "bits a byte",
        "LAMBADA",
        "homegrown pretrain a",
        "`training/recipes/base.toml`",
    ):
        assert part in card, part
    assert str(places.work) not in "".join(map(str, there.values()))
    assert [path.name for path in places.checkpoints.iterdir()] == [BASE]
    assert sum(sizes(target).values()) == sum(map(len, there.values()))
    assert set(sizes(target)) == {"base", *ADAPTERS}
    assert files(publish(places, commands(places))) == there


@pytest.mark.parametrize("limit", ["MODEL_LIMIT", "ALL_LIMIT"])
def test_what_is_too_large_leaves_everything_as_it_was(
    places: Places, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    target, other = publish(places, commands(places)), places.checkpoints / "other"
    other.mkdir()
    (other / "model.safetensors").write_bytes(b"0" * 5000)
    before, size = files(places.checkpoints), sum(sizes(target).values())
    at = {"MODEL_LIMIT": size, "ALL_LIMIT": size + 5000}[limit]
    (places.work / BASE / "model" / "model.safetensors").write_bytes(b"weights of the lask")  # as many bytes as before
    monkeypatch.setattr(module, limit, at)
    with pytest.raises(CheckpointError, match=r"is to be under|are to be under"):
        publish(places, commands(places))
    assert files(places.checkpoints) == before
    assert {path.name for path in places.checkpoints.iterdir()} == {BASE, "other"}
    monkeypatch.setattr(module, limit, at + 1)
    publish(places, commands(places))
    assert (target / "model.safetensors").read_bytes() == b"weights of the lask"


@pytest.mark.parametrize(("gone", "text"), [
    ("instruct/model/adapter_model.safetensors", 'training/recipes/instruct.toml must have method = "lora"'),
    ("sms-spam/model/README.md", "--only sms-spam"), (f"{BASE}/model/model.safetensors", f"--only {BASE}"),
])  # fmt: skip
def test_a_run_without_its_result_is_named_and_nothing_is_written(places: Places, gone: str, text: str) -> None:
    (places.work / gone).unlink()
    with pytest.raises(CheckpointError) as raised:
        publish(places, commands(places))
    assert gone.rsplit("/", 1)[1] in str(raised.value)
    assert text in str(raised.value)
    assert not list(places.checkpoints.iterdir())


def test_a_card_that_names_its_base_keeps_that(places: Places) -> None:
    from training.models.figures import collect

    card = '---\nlibrary_name: "peft"\nbase_model: "mine/base"\n---\n# x\n'
    text = completed(
        card, "instruct", collect(places, commands(places)), "homegrown x", "training/recipes/instruct.toml"
    )
    assert text.count("base_model") == 1


def test_an_adapter_has_no_second_copy_of_the_bases_tokenizer(places: Places) -> None:
    for name, text in (
        (BASE, "vocabulary"),
        ("instruct", "vocabulary"),
        ("sms-spam", "vocabulary"),
        ("sentiment", "another"),
    ):
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (places.work / name / "model" / file).write_text(text)
    (places.work / "instruct" / "model" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    there = files(publish(places, commands(places)))
    assert [name for name in ADAPTERS if f"adapters/{name}/tokenizer.json" in there] == ["instruct", "sentiment"]
    assert [name for name in ADAPTERS if f"adapters/{name}/tokenizer_config.json" in there] == ["instruct", "sentiment"]


def test_every_published_model_has_a_command(places: Places) -> None:
    lines = command_lines(places)
    for name in (BASE, *ADAPTERS):
        assert lines[name].startswith("homegrown ")
        assert lines[name].endswith(f"--out runs/models/{name}")
    assert not any(str(places.work) in line or str(places.data) in line for line in lines.values())
