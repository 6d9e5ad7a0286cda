"""The tables of docs/http.md, made from the OpenAPI document.

A pair of comments in the page, `<!-- fields: POST /generate -->` and `<!-- end -->`, encloses what is made for a route;
`<!-- fields: sampling -->` the fields that several routes share.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]
_BLOCK = re.compile(r"(<!-- fields: (?P<what>[^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_SAMPLING = "sampling"
_SHARERS = ("GenerateRequest", "InstructRequest", "CompletionRequest", "ChatRequest")
_SHARED_ROW = "| *sampling* | | | All [sampling fields](#sampling). |"


class Reference:
    """An OpenAPI document as tables."""

    def __init__(self, document: Schema) -> None:
        self._paths: Schema = document["paths"]
        self._schemas: dict[str, Schema] = document["components"]["schemas"]
        first, *others = (self._schemas[name]["properties"] for name in _SHARERS)
        self._sampling = {
            key: field for key, field in first.items() if all(other.get(key) == field for other in others)
        }

    def routes(self) -> list[str]:
        """All of them, as `POST /generate`."""
        return [f"{method.upper()} {path}" for path, methods in self._paths.items() for method in methods]

    def fill(self, page: str) -> str:
        """The page with all its tables as they should be. LookupError: a block names what there is not."""
        return _BLOCK.sub(lambda found: found[1] + self._made(found["what"]) + found[3], page)

    def _made(self, what: str) -> str:
        if what == _SAMPLING:
            return "\n".join(self._table(self._sampling, "field")) + "\n"
        method, _, path = what.partition(" ")
        if method.lower() not in self._paths.get(path, {}):
            raise LookupError(f"docs/http.md has tables of {what!r}, but the service has {', '.join(self.routes())}")
        return "\n".join(self._of_route(self._paths[path][method.lower()])) + "\n"

    def _of_route(self, operation: Schema) -> Iterator[str]:
        yield " ".join(operation["description"].split())
        for parameter in operation.get("parameters", []):
            yield f"\nIn the path: `{parameter['name']}`."
        if "requestBody" in operation:
            for name in self._bodies(operation["requestBody"]["content"]["application/json"]["schema"]):
                yield from self._request(name)
        answer = operation["responses"]["200"]["content"].get("application/json")
        if answer is not None:
            yield ""
            yield from self._table(self._flat(self._schemas[_name(answer["schema"])]), "answer")
        yield f"\nStatus {', '.join(operation['responses'])}."

    def _bodies(self, schema: Schema) -> list[str]:
        return [_name(schema)] if "$ref" in schema else [_name(part) for part in schema["oneOf"]]

    def _request(self, name: str) -> Iterator[str]:
        schema = self._schemas[name]
        fields = {key: field for key, field in schema["properties"].items() if self._sampling.get(key) != field}
        needed = schema.get("required", ())
        fields = dict(
            sorted(fields.items(), key=lambda item: item[0] not in needed)
        )  # those first that can't be left out
        yield ""
        yield from self._table(self._flat({**schema, "properties": fields}), "field")
        if len(fields) < len(schema["properties"]):
            yield _SHARED_ROW

    def _flat(self, schema: Schema, prefix: str = "", within: tuple[str, ...] = ()) -> dict[str, Schema]:
        """The fields of an object and of the objects in it, by path: `choices[].message.content`."""
        found: dict[str, Schema] = {}
        for key, field in schema.get("properties", {}).items():
            found[prefix + key] = {**field, "required": key in schema.get("required", ())}
            for name, behind in _objects(field):
                if name not in within:
                    found |= self._flat(self._schemas[name], f"{prefix}{key}{behind}.", (*within, name))
        return found

    def _table(self, fields: dict[str, Schema], title: str) -> Iterator[str]:
        """The rows of a request's fields (`title` field) or of an answer's, which have no defaults (`title` answer)."""
        asked = title == "field"
        yield (
            f"| {title} | type | default | what |\n|---|---|---|---|"
            if asked
            else f"| {title} | type | what |\n|---|---|---|"
        )
        for key, field in fields.items():
            about = " ".join(field.get("description", "").split())
            cells = [f"`{key}`", self._type(field), *([_default(field)] if asked else []), about]
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    def _type(self, field: Schema) -> str:
        """A field's type and bounds in words."""
        for several in ("anyOf", "oneOf"):
            if several in field:
                return " or ".join(dict.fromkeys(self._type(part) for part in field[several]))
        if "$ref" in field:
            return "object"
        if "const" in field:
            return _literal(field["const"])
        if "enum" in field:
            return " or ".join(_literal(value) for value in field["enum"])
        kind = {"array": "list", "integer": "whole number", "boolean": "true or false"}.get(field.get("type", ""), "")
        text = kind or field.get("type", "any")
        if "items" in field:
            text += f" of {_several(self._type(field['items']))}"
        if isinstance(field.get("additionalProperties"), dict):
            text += f" of {_several(self._type(field['additionalProperties']))}"
        return text + _bounds(field)


def _name(schema: Schema) -> str:
    return schema["$ref"].rpartition("/")[2]


def _objects(field: Schema, behind: str = "") -> Iterator[tuple[str, str]]:
    """The schemas that a field's values may follow, each with what stands for "an item of" behind the field's name."""
    if "$ref" in field:
        yield _name(field), behind
    for part in (*field.get("anyOf", ()), *field.get("oneOf", ())):
        yield from _objects(part, behind)
    if "items" in field:
        yield from _objects(field["items"], behind + "[]")


def _default(field: Schema) -> str:
    if field.get("required"):
        return "required"
    value = field.get("default")
    return "" if value is None else _literal(value)


def _literal(value: Any) -> str:
    """A value as JSON has it."""
    return (
        f"`{json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value, ensure_ascii=False)}`"
    )


def _several(kind: str) -> str:
    """A type's name in the plural, its bounds apart: 'string (at least 1 character)' -> 'strings (...)'."""
    name, bounds, rest = kind.partition(" (")
    head, of, tail = name.partition(" of ")
    head = " or ".join(
        word if word in ("null", "true", "false") or "`" in word else word + "s" for word in head.split(" or ")
    )
    return head + of + tail + bounds + rest


def _bounds(field: Schema) -> str:
    """' (from 0, to 2)' and the like; bounds that only say what a computer's number can hold are left out."""
    parts: list[str] = []
    huge = 2**31 - 1
    low = field.get("minimum", field.get("exclusiveMinimum"))
    high = field.get("maximum", field.get("exclusiveMaximum"))
    if low is not None and abs(low) < huge:
        parts.append(f"above {_number(low)}" if "exclusiveMinimum" in field else f"from {_number(low)}")
    if high is not None and abs(high) < huge:
        parts.append(f"below {_number(high)}" if "exclusiveMaximum" in field else f"to {_number(high)}")
    for key, word, unit in (
        ("minLength", "at least", "characters"), ("maxLength", "at most", "characters"),
        ("minItems", "at least", "items"), ("maxItems", "at most", "items"),
    ):  # fmt: skip
        if field.get(key):
            parts.append(
                f"{word} {field[key]:,} {unit}".replace("1 characters", "1 character").replace("1 items", "1 item")
            )
    return f" ({', '.join(parts)})" if parts else ""


def _number(value: float) -> str:
    return f"{value:g}"
