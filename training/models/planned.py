"""How large the bundled models will be, from their recipes: what doesn't fit is to be known before the hours that they take."""

from collections.abc import Iterator

from model.checkpoint import empty_model
from model.errors import ConfigError
from model.lora import add_lora, lora_pairs
from training.classify_recipe import ClassifySettings
from training.instruct_recipe import InstructSettings
from training.models.places import BASE, Places
from training.models.publish import MB, MODEL_LIMIT, RECIPES
from training.pretrain import model_config
from training.pretrain_recipe import PretrainSettings

_BESIDE = 1_500_000  # two tokenizers, cards, configurations: bytes
_BASE_BYTES, _PAIR_BYTES = 2, 4  # of a weight, as they are stored


def check_planned(places: Places) -> None:
    """ConfigError, with the size of each part, when the recipes' models would be too large to be shipped together."""
    sizes = dict(_planned(places))
    total = sum(sizes.values()) + _BESIDE
    if total >= MODEL_LIMIT:
        parts = ", ".join(f"{name} {size / MB:.1f}" for name, size in sizes.items())
        raise ConfigError(
            f"{places.recipes}: these recipes' models would take {total / MB:.1f} MB together, of which {MODEL_LIMIT / MB:.0f} MB "
            f"may be shipped (MB: {parts}, beside them {_BESIDE / MB:.1f}); choose a smaller model or lower ranks"
        )


def _planned(places: Places) -> Iterator[tuple[str, int]]:
    base = PretrainSettings.from_toml(places.path(RECIPES[BASE]))
    config = model_config(base, base.data.vocab_size, None)
    yield BASE, _BASE_BYTES * sum(weight.numel() for weight in empty_model(config).parameters())
    for name, recipe in RECIPES.items():
        if name == BASE:
            continue
        settings = (InstructSettings if name == "instruct" else ClassifySettings).from_toml(places.path(recipe))
        if settings.method == "lora":  # else nothing of it could be published, which is said there
            model = empty_model(config)
            add_lora(model, settings.lora.config())
            yield name, _PAIR_BYTES * sum(pair.a.numel() + pair.b.numel() for _, pair in lora_pairs(model))
