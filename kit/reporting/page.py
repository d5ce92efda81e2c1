"""Render one self-contained HTML page from a template: style and script inline, nothing is loaded.

A template writes `num('cv.oof_accuracy', 'percent')`: the number is looked up by that name in the
report's dict, and the page keeps the name beside it. So a test can compare every number on the page
with the JSON file.
"""

import base64
import hashlib
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from kit.core.durations import measured_duration
from kit.reporting import numerals, verdict

HERE = Path(__file__).parent


def render(template: str, numbers: dict[str, Any], class_names: list[str], **context: Any) -> str:
    """The page `template` of this folder with `numbers` to look up; every text is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["options"] = keep_options_whole
    style, script = ((HERE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    return environment.get_template(template).render(
        numbers=numbers, num=lookup(numbers), fmt=FORMATS, symbols=numerals.symbols(class_names),
        classes=[{"plain": plain, "kannada": numerals.is_kannada(name)} for name, plain in
                 zip(class_names, numerals.plain_names(class_names), strict=True)],
        style=Markup(style), script=Markup(script),  # noqa: S704  our own files # nosec B704
        # The only script that the page's content security policy allows
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **context)


def lookup(numbers: dict[str, Any]) -> Callable[..., Markup]:
    """`num(key, kind)` for templates: the number at a dotted key, formatted, with its key."""

    def num(key: str, kind: str = "count") -> Markup:
        value = value_at(numbers, key)
        if value is None:
            return Markup('<span class="unknown" title="not known">–</span>')
        return Markup('<data value="{}" data-key="{}">{}</data>').format(
            value, key, FORMATS[kind](value))

    return num


def value_at(numbers: Any, key: str) -> Any:
    """The value at a dotted key: names of dicts, positions in lists."""
    for part in key.split("."):
        numbers = numbers[int(part) if isinstance(numbers, list) else part]
    return numbers


def keep_options_whole(words: str) -> Markup:
    """`words` escaped, where no browser breaks a line after the hyphens of an option."""
    marked = re.sub(r"(--[a-z][a-z-]*)", r'<span class="option">\1</span>', str(escape(words)))
    return Markup(marked)  # noqa: S704  escaped above # nosec B704


def shades(matrix: list[list[int]]) -> Callable[[int], str]:
    """How strongly to tint a wrong cell of a confusion matrix, by its count.

    From 0.1 for one row to 0.4 for the largest, logarithmic.
    """
    largest = max(count for i, row in enumerate(matrix) for j, count in enumerate(row) if i != j)

    def shade(count: int) -> str:
        return f"{0.1 + 0.3 * math.log(max(count, 1)) / math.log(max(largest, 2)):.2f}"

    return shade


FORMATS: dict[str, Callable[[Any], str]] = {
    "percent": verdict.percent,
    "tenths": lambda value: f"{value:,.1f}",
    # The low end of an interval
    "bare": lambda value: verdict.percent(value).removesuffix("\u00a0%"),
    "percent1": lambda value: verdict.percent(value, 1),
    "percent0": lambda value: verdict.percent(value, 0),
    "signed": lambda value: verdict.points(value).removesuffix("\u00a0points"),
    "spread": lambda value: verdict.points(value).removeprefix("+"),
    "p": verdict.p_value,
    "count": lambda value: f"{value:,.0f}",
    "number": lambda value: f"{value:.4f}",
    "duration": lambda value: measured_duration(value).replace(" ", "\u00a0"),
}
