# SPDX-License-Identifier: Apache-2.0
"""Renders templates to HTML pages under a content security policy that allows the page's own script and style alone.

What is in a report was chosen by whoever made the dump. Three things keep it from doing anything on a page:

- every value is escaped for HTML by the template engine (autoescape), also in attributes, which are all in quotation
  marks;
- characters that cannot be seen (control characters, right-to-left overrides) are shown as escapes, as everywhere;
- the page's content security policy (https://www.w3.org/TR/CSP3/) names the script and the style by their hashes, so
  that no other script or style works, and nothing is fetched from anywhere.

The policy forbids attributes `style="…"` and `onclick="…"` in templates, too. Other rooms can add templates, styles and
scripts of their own (`render`); they extend `base.html`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache

from jinja2 import BaseLoader, ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from throwstack.core.text import escape
from throwstack.report.frame_report import WHOLE
from throwstack.report.page import page_values
from throwstack.report.text import spelling

STYLE = "page.css"
SCRIPT = "page.js"
_LOADER = PackageLoader("throwstack.report.page", "templates")
_FILTERS = {
    "place": page_values.place,
    "number": page_values.number,
    "short": page_values.short,
    "size": page_values.size,
    "moment": page_values.moment,
    "word": page_values.word,
    "argument": spelling.argument,
    "counted": spelling.count,
    "duration": spelling.duration,
    "identifier": spelling.both_bases,
}


def render(
    template: str,
    values: Mapping[str, object],
    *,
    loader: BaseLoader | None = None,
    styles: Sequence[str] = (STYLE,),
    scripts: Sequence[str] = (SCRIPT,),
) -> str:
    """Return the page that `template` makes of `values`.

    `loader` finds templates, styles and scripts that are not in this room. Every one of `styles` and `scripts` is put
    into the page; the template has to extend `base.html`.
    """
    environment = _environment(loader)
    given_styles = [_source(environment, name) for name in styles]
    given_scripts = [_source(environment, name) for name in scripts]
    return environment.get_template(template).render(
        values,
        styles=[Markup(text) for text in given_styles],  # noqa: S704 ours, from the package
        scripts=[Markup(text) for text in given_scripts],  # noqa: S704
        policy=_policy(given_styles, given_scripts),
    )


def shown(value: object) -> object:
    """Return a value as templates show it: text with every character visible, and of limited length."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return escape(value, WHOLE)


@cache
def _environment(loader: BaseLoader | None) -> Environment:
    environment = Environment(
        loader=_LOADER if loader is None else ChoiceLoader([loader, _LOADER]),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )
    environment.filters.update(_FILTERS)
    return environment


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    # A browser makes line ends of one kind before it hashes; a checkout on Windows may have the other kind.
    return environment.loader.get_source(environment, name)[0].replace("\r\n", "\n").strip()


def _policy(styles: Sequence[str], scripts: Sequence[str]) -> str:
    return (
        f"default-src 'none'; style-src {_hashes(styles)}; script-src {_hashes(scripts)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hashes(texts: Sequence[str]) -> str:
    """Return the sources of a policy that allow elements with exactly these texts."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
