"""One self-contained HTML page from a template: style and script inline, nothing is loaded.

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

from kit.reporting import numerals, verdict

HERE = Path(__file__).parent


def render(template: str, numbers: dict[str, Any], class_names: list[str], **context: Any) -> str:
    """The page `template` of this folder with `numbers` to look up; every text in it is escaped."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["options"] = options
    script = (HERE / "page.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        numbers=numbers, num=lookup(numbers), fmt=FORMATS, symbols=numerals.symbols(class_names),
        classes=[{"name": name, "kannada": numerals.is_kannada(name)} for name in class_names],
        style=Markup((HERE / "page.css").read_text("utf-8")),  # noqa: S704  our own file # nosec B704
        script=Markup(script), script_hash=digest, **context)  # noqa: S704 # nosec B704


def lookup(numbers: dict[str, Any]) -> Callable[..., Markup]:
    """`num(key, kind)` for templates: the number at a dotted key, formatted, with key and value."""

    def num(key: str, kind: str = "count") -> Markup:
        value = value_at(numbers, key)
        if value is None:
            return Markup('<span class="unknown" title="not known">–</span>')
        return Markup('<data value="{}" data-key="{}">{}</data>').format(value, key, FORMATS[kind](value))

    return num


def value_at(numbers: Any, key: str) -> Any:
    """The value at a dotted key: names of dicts, positions in lists."""
    for part in key.split("."):
        numbers = numbers[int(part) if isinstance(numbers, list) else part]
    return numbers


def options(words: str) -> Markup:
    """`words` escaped, with command-line options kept in one piece: a browser breaks lines after each hyphen."""
    return Markup(re.sub(r"(--[a-z][a-z-]*)", r'<span class="option">\1</span>', str(escape(words))))  # noqa: S704 # nosec B704


def shades(matrix: list[list[int]]) -> Callable[[int], str]:
    """How strongly a wrong cell of a confusion matrix is tinted: 0.1 for one row, 0.4 for the largest, logarithmic."""
    largest = max((count for i, row in enumerate(matrix) for j, count in enumerate(row) if i != j), default=0)
    return lambda count: f"{0.1 + 0.3 * math.log(max(count, 1)) / math.log(max(largest, 2)):.2f}"


def duration(seconds: float) -> str:
    """75.2 → '1 min 15 s'."""
    if seconds < 10:
        return f"{seconds:.1f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours}\u00a0h"] * bool(hours) + [f"{minutes}\u00a0min"] * bool(minutes)
    return " ".join(parts + [f"{rest}\u00a0s"] * (not hours))


FORMATS: dict[str, Callable[[Any], str]] = {
    "percent": verdict.percent,
    "tenths": lambda value: f"{value:,.1f}",
    "bare": lambda value: verdict.percent(value).removesuffix("\u00a0%"),  # the low end of an interval
    "percent1": lambda value: verdict.percent(value, 1),
    "percent0": lambda value: verdict.percent(value, 0),
    "points": verdict.points,
    "signed": lambda value: verdict.points(value).removesuffix("\u00a0points"),
    "spread": lambda value: verdict.points(value).removeprefix("+"),
    "p": verdict.p_value,
    "count": lambda value: f"{value:,.0f}",
    "number": lambda value: f"{value:.4f}",
    "duration": duration,
}
