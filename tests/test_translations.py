"""Translations: their blocks, tables and links are those of the original, and an original that has changed is noticed."""

import re
from pathlib import Path

import pytest

from docs.tools.translations import (
    TRANSLATIONS,
    Page,
    TranslationError,
    blocks,
    links,
    stamp,
    stamp_in,
    stamped,
    updated,
    written,
)

ROOT = Path(__file__).parents[1]
REFRESH = "python -m docs.refresh --translations"
PAIRS = [
    tuple(Page(name, (ROOT / name).read_text("utf-8")) for name in (translation, original))
    for translation, original in TRANSLATIONS.items()
]
each = pytest.mark.parametrize(("translation", "original"), PAIRS, ids=list(TRANSLATIONS))


def numerals(text: str) -> list[list[str]]:
    """Those of each table row."""
    return [re.findall(r"\d[\d.,]*", row) for row in re.findall(r"^\|.*$", text, re.MULTILINE)]


def levels(text: str) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#+) ", written(text), re.MULTILINE)]


def test_every_translation_is_known() -> None:
    assert {str(page.relative_to(ROOT).as_posix()) for page in (ROOT / "docs" / "pt").glob("*.md")} == set(TRANSLATIONS)


@each
def test_its_prose_was_made_from_the_original_as_it_is(translation: Page, original: Page) -> None:
    assert stamp_in(translation) == stamp(original), (
        f"the prose of {original.name} has changed: bring {translation.name} up to date, then run `{REFRESH}`"
    )


@each
def test_its_blocks_and_generated_sections_are_the_originals(translation: Page, original: Page) -> None:
    assert updated(translation, original) == translation.text, f"{translation.name}: run `{REFRESH}`"


@each
def test_it_is_built_like_the_original(translation: Page, original: Page) -> None:
    assert levels(translation.text) == levels(original.text)
    assert numerals(written(translation.text)) == numerals(written(original.text))


@each
def test_its_links_lead_where_those_of_the_original_do(translation: Page, original: Page) -> None:
    missing = {link for link in links(translation) if not (ROOT / link.partition("#")[0]).exists()}
    assert missing == set()
    own = original.name  # each links to the other at its top
    led = [{TRANSLATIONS.get(link, link) for link in links(page)} for page in (translation, original)]
    assert led[0] - {own} == led[1] - {own}
    assert own in led[0]
    assert own in led[1]


ORIGINAL = Page(
    "README.md",
    """# Title

[Em português](docs/pt/README.md)

Some words,
and a [link](docs/tour.md).

```sh
# first
make serve     # starts
# second
make test
make lint   # checks
```

```console
$ echo 2
2
```

<!-- a remark -->

| a | b |
|---|---|
| one | 1,234.5 |

<!-- models: begin (by a program) -->

[tour](docs/tour.md), [models](docs/models.md#base), [site](https://example.org/)

```console
$ not a block of its own
```

<!-- models: end -->

```
model/ the GPT
app/   the service
```

```python
print(2)
```
""",
)
TRANSLATION = Page(
    "docs/pt/README.md",
    """# Título

Palavras.

```sh
# primeiro
make serve   # liga
# segundo
make test ARGS=-x  # testa
make lint # confere
```

```console
$ echo 1
1
```

| a | b |
|---|---|
| um | 1,234.5 |

<!-- models: begin -->
old
<!-- models: end -->

```
model/ o GPT
```

```python
print(1)
```

Fim.
""",
)
UPDATED = """# Título

Palavras.

```sh
# primeiro
make serve     # liga
# segundo
make test
make lint   # confere
```

```console
$ echo 2
2
```

| a | b |
|---|---|
| um | 1,234.5 |

<!-- models: begin (by a program) -->

[tour](tour.md), [models](../models.md#base), [site](https://example.org/)

```console
$ not a block of its own
```

<!-- models: end -->

```
model/ o GPT
app/   the service
```

```python
print(2)
```

Fim.
"""


def changed(page: Page, old: str, new: str) -> Page:
    assert old in page.text
    return Page(page.name, page.text.replace(old, new))


def test_blocks_are_brought_up_to_date_and_comments_stay_translated() -> None:
    assert updated(TRANSLATION, ORIGINAL) == UPDATED
    assert updated(Page(TRANSLATION.name, UPDATED), ORIGINAL) == UPDATED
    assert [block.language for block in blocks(UPDATED)] == ["sh", "console", "", "python"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("```console\n$ echo 1\n1\n```\n", "", r"docs/pt/README.md: block 2 of README.md \(console: \$ echo 2\) is missing"),
        ("```python", "```sh", r"docs/pt/README.md: block 4 of README.md \(python: print\(2\)\) is missing"),
        ("Fim.", "```sh\nls # lista\n```", r"docs/pt/README.md: block 5 \(sh: ls\) isn't in README.md"),
        ("<!-- models: end -->", "", r"docs/pt/README.md: its generated sections are \[\], those of README.md \['models'\]"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_named(old: str, new: str, message: str) -> None:
    with pytest.raises(TranslationError, match=message):
        updated(changed(TRANSLATION, old, new), ORIGINAL)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("words,\nand", "words, and"), ("echo 2", "echo 3"), ("make serve ", "make start "), ("a remark", "another"),
        ("[site]", "[place]"), ("\n[Em português](docs/pt/README.md)\n", ""),
    ],
)  # fmt: skip
def test_what_no_one_translates_leaves_the_stamp_as_it_is(old: str, new: str) -> None:
    assert stamp(changed(ORIGINAL, old, new)) == stamp(ORIGINAL)


@pytest.mark.parametrize(
    ("old", "new"),
    [("Some words", "Other words"), ("# starts", "# begins"), ("1,234.5", "1,234.6"), ("the GPT", "a GPT")],
)
def test_what_is_translated_changes_the_stamp(old: str, new: str) -> None:
    assert stamp(changed(ORIGINAL, old, new)) != stamp(ORIGINAL)


def test_a_translation_is_stamped_anew_in_one_place() -> None:
    assert stamp_in(TRANSLATION) is None
    once = Page(TRANSLATION.name, stamped(TRANSLATION, ORIGINAL))
    assert stamp_in(once) == stamp(ORIGINAL)
    assert once.text.startswith(TRANSLATION.text)
    assert stamped(once, ORIGINAL) == once.text
    later = changed(ORIGINAL, "Some words", "Other words")
    assert stamped(once, later) == once.text.replace(stamp(ORIGINAL), stamp(later))
