"""The table of the server's settings in docs/http.md, made from the settings themselves.

It stands between the comments `<!-- settings -->` and `<!-- end -->`.
"""

import json
import re

from pydantic_core import PydanticUndefined

from app.settings import Settings

_BLOCK = re.compile(r"(<!-- settings -->\n).*?(<!-- end -->)", re.DOTALL)


def fill_settings(page: str) -> str:
    """The page with the table as it should be."""
    rows = ["| setting | default | what |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default
        unset = default is None or default is PydanticUndefined or default in ("", [], {})
        shown = "" if unset else f"`{json.dumps(default) if isinstance(default, bool) else default}`"
        about = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{name}` | {shown} | {about} |")
    table = "\n".join(rows) + "\n"
    return _BLOCK.sub(lambda found: found[1] + table + found[2], page)
