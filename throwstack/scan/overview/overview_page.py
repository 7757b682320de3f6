# SPDX-License-Identifier: Apache-2.0
"""The page over all dumps: one HTML file that fetches nothing, with its values as JSON in it.

The script makes rows of these values, and only of those that are to be seen, because a browser takes seconds to lay out
thousands of rows. It sets texts and never HTML. In the JSON, `<`, `>` and `&` are escaped, so that no text in it can
end the element that it is in. Characters that cannot be seen are shown as escapes, as on all pages.
"""

from __future__ import annotations

import json
from typing import Any

from jinja2 import PackageLoader
from markupsafe import Markup

from throwstack.report.page.page_templates import STYLE, render, shown

_LOADER = PackageLoader("throwstack.scan.overview", "templates")
_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def overview_page(values: dict[str, Any], *, version: str = "") -> str:
    """Return the page for `values`, as `CrashGroups.as_json` returns them."""
    data = json.dumps(_visible(values), ensure_ascii=False, separators=(",", ":")).translate(_ESCAPED)
    return render(
        "overview.html",
        {"values": values, "data": Markup(data), "version": version},  # noqa: S704 escaped in the line above
        loader=_LOADER,
        styles=(STYLE, "overview.css"),
        scripts=("overview.js",),
    )


def _visible(value: Any) -> Any:  # noqa: ANN401 what JSON is made of
    if isinstance(value, dict):
        return {shown(key): _visible(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_visible(item) for item in value]
    return shown(value)
