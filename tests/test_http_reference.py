"""docs/http.md: its tables are those of the OpenAPI document, and every route is in it. (Its commands: test_readme.py.)"""

import json
import re

from app.settings import Settings
from docs.refresh import REFERENCE, fresh_tables
from docs.tools.fields import Reference
from docs.tools.openapi import openapi_document
from docs.tools.running import ROOT

PAGE = (ROOT / REFERENCE).read_text("utf-8")
DOCUMENT = openapi_document()


def test_its_tables_are_up_to_date() -> None:
    assert fresh_tables(PAGE) == PAGE, "run: python -m docs.refresh --tables"


def test_every_route_has_a_section_with_its_tables_and_a_command() -> None:
    sections = dict(re.findall(r"^## ((?:GET|POST|DELETE) \S+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
    assert set(sections) == set(Reference(DOCUMENT).routes())
    for route, text in sections.items():
        assert f"<!-- fields: {route} -->" in text, route
        path = route.split()[1].replace("{model}", "homegrown-base").replace("{name}", "reviews")
        assert re.search(rf":8000{re.escape(path)}(?![\w/])", text), f"{route}: no command asks it"


def test_every_field_and_default_of_the_document_is_in_it() -> None:
    """Counted from the document itself, not by the code that made the tables."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            section = PAGE.partition(f"\n## {method.upper()} {path}\n")[2].partition("\n## ")[0]
            assert section, f"{method} {path}"
            if "requestBody" not in operation:
                continue
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            for part in schema.get("oneOf", [schema]):
                body = DOCUMENT["components"]["schemas"][part["$ref"].rpartition("/")[2]]
                for field, about in body["properties"].items():
                    row = re.search(rf"^\| `{field}` \|.*$", section, re.MULTILINE)
                    if row is None and "[sampling fields](#sampling)" in section:
                        row = re.search(rf"^\| `{field}` \|.*$", PAGE, re.MULTILINE)
                    assert row is not None, f"{method} {path}: {field}"
                    if field in body.get("required", ()):
                        assert "| required |" in row[0]
                    elif about.get("default") is not None:
                        value = re.search(r"\| `([^`]*)` \| [^|]*\|$", row[0].replace(r"\|", "¦"))
                        assert value, row[0]
                        assert json.loads(value[1].replace("¦", "|")) == about["default"], row[0]


def test_every_setting_and_its_default_is_in_it() -> None:
    table = PAGE.partition("\n## Settings\n")[2]
    for field, about in Settings.model_fields.items():
        row = re.search(rf"^\| `{field}` \| (.*?) \|", table, re.MULTILINE)
        assert row is not None, field
        if isinstance(about.default, int | float | str):
            assert row[1] == f"`{str(about.default).lower() if isinstance(about.default, bool) else about.default}`", (
                field
            )


def test_every_status_of_the_document_is_explained() -> None:
    codes = {code for path in DOCUMENT["paths"].values() for one in path.values() for code in one["responses"]}
    table = PAGE.partition("\n## Errors\n")[2].partition("\n## ")[0]
    assert codes - {"200"} <= set(re.findall(r"^\| (\d{3}) \|", table, re.MULTILINE))


def test_its_links_within_the_page_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) - anchors == set()
