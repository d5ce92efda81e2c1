"""Draw the plots of the pages as inline SVG, and the ledger's as a file.

Colours and fonts are those of the page (CSS classes, styled in page.css). Every mark carries a
<title> that shows its numbers on hover, and a drawing as a whole is one image with a label; for
those who cannot see it, the page has a table below.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from kit.reporting.verdict import percent

# Width of every drawing in its own units: about what a phone shows 1:1, so text stays readable
WIDTH = 420
TICK_WIDTH = 50  # of a label such as 99.5 %, with the space to the next one
Scale = Callable[[float], float]
# The page's colours, for a drawing that is a file of its own. They are written out, since not every
# program that shows SVG knows CSS variables.
FILE_STYLE = """
text { font: 12px sans-serif; fill: #5b606a } .name { fill: #1c1e22 } .grid { stroke: #dedcd6 }
.paper { fill: #ffffff } .dot { fill: #1d5c87 }
.whisker { stroke: #1d5c87; stroke-width: 5; opacity: .4 }
.ring { fill: none; stroke-width: 2 } .public { stroke: #a63d1c } .private { stroke: #1c1e22 }
"""


# -- shapes; `kind` is the CSS class ---------------------------------------------------------------


def drawing(height: float, label: str, *parts: Markup) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
                  ).format(WIDTH, round(height), label, Markup("").join(parts))


def svg_file(width: float, height: float, label: str, *parts: Markup) -> str:
    """A drawing as the text of an .svg file, which no page styles."""
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{1}" viewBox="0 0 {0} {1}"'
        ' role="img" aria-label="{2}"><style>{3}</style>{4}{5}</svg>\n').format(
        round(width), round(height), label, FILE_STYLE, box(0, 0, width, height, "paper"),
        Markup("").join(parts))


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "tick") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" class="{}">{}</text>').format(
        x, y, anchor, kind, words)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(
        x1, y1, x2, y2, kind)


def dot(x: float, y: float, radius: float = 4, kind: str = "dot") -> Markup:
    return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" class="{}"/>').format(
        x, y, radius, kind)


def box(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    return Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}"/>').format(
        x, y, max(width, 0), height, kind)


def titled(title: str, *parts: Markup) -> Markup:
    """A group of shapes that shows `title` on hover."""
    return Markup('<g class="mark"><title>{}</title>{}</g>').format(title, Markup("").join(parts))


# -- scales ----------------------------------------------------------------------------------------


def linear(low: float, high: float, start: float, end: float) -> Scale:
    return lambda value: start + (value - low) / ((high - low) or 1) * (end - start)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """Values below `low` are drawn at it: a perfect score has no logarithm."""
    inner = linear(math.log(low), math.log(high), start, end)
    return lambda value: inner(math.log(max(value, low)))


def nice_ticks(low: float, high: float, at_most: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten that enclose `low` to `high`."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / at_most))
    step = next(power * m for m in (1, 2, 5, 10, 20) if span / (power * m) <= at_most - 1)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten that enclose `low` to `high`; powers alone over two decades.

    Both must be positive.
    """
    steps = (1, 2, 5) if high / low < 100 else (1,)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    every = sorted(round(m * 10.0**k, 12) for k in powers for m in steps)
    first = max((tick for tick in every if tick <= low), default=every[0])
    last = min((tick for tick in every if tick >= high), default=every[-1])
    return [tick for tick in every if first <= tick <= last]


def percents(ticks: Sequence[float]) -> list[str]:
    """Tick labels with as many digits as the closest two ticks need."""
    gap = min((b - a for a, b in itertools.pairwise(ticks)), default=1.0)
    digits = max(0, math.ceil(-math.log10(gap * 100) - 1e-9))
    return [percent(tick, digits) for tick in ticks]


def percent_axis(ticks: Sequence[float], x: Scale, bottom: float, top: float = 4) -> list[Markup]:
    """A vertical line at each tick, with its label below."""
    return [part for tick, words in zip(ticks, percents(ticks), strict=True)
            for part in (line(x(tick), top, x(tick), bottom, "grid"),
                         text(x(tick), bottom + 16, words, "middle"))]


# -- dots with intervals ---------------------------------------------------------------------------


def intervals(rows: Sequence[dict[str, Any]], label: str, reference: float | None = None,
              gutter: float = 60, row_height: float = 26) -> Markup:
    """One dot and its 95 % interval per row, on one scale of accuracy.

    A row has `name`, `value` and `ci95`, and may have `note`, `kind`, and `actual`, the true value,
    which is drawn as a ring. reference: an accuracy to draw a line at. gutter: room for the names.
    """
    bounds = [bound for row in rows
              for bound in (*row["ci95"], row["value"], row.get("actual", row["value"]))]
    left, right = gutter + 8, WIDTH - 24
    room = int((right - left) / TICK_WIDTH)
    ticks = nice_ticks(min(bounds), min(1.0, max(bounds)), min(6, room))
    bottom = 8 + row_height * len(rows)
    x = linear(ticks[0], ticks[-1], left, right)
    parts = percent_axis(ticks, x, bottom)
    if reference is not None:
        parts.append(titled(f"all rows: {percent(reference)}",
                            line(x(reference), 4, x(reference), bottom, "reference")))
    for index, row in enumerate(rows):
        y, (low, high) = 8 + row_height * (index + 0.5), row["ci95"]
        title = (f"{row['name']}: {percent(row['value'])}, "
                 f"95 % interval {percent(low)} to {percent(high)}")
        title += f"; {row['note']}" if "note" in row else ""
        ring = [dot(x(row["actual"]), y, 5.5, "ring")] if "actual" in row else []
        parts.append(titled(title, box(0, y - 6, WIDTH, 12, "hit"),
                            text(gutter, y + 4, row["name"], "end", "name"),
                            line(x(low), y, x(high), y, "whisker"), *ring,
                            dot(x(row["value"]), y, kind=f"dot {row.get('kind', '')}")))
    return drawing(bottom + 24, label, *parts)


def dumbbells(rows: Sequence[dict[str, Any]], label: str) -> Markup:
    """For each row (`name`, `accuracy_a`, `accuracy_b`) a ring at B, a dot at A, a line between."""
    ends = [row[key] for row in rows for key in ("accuracy_a", "accuracy_b")]
    ticks = nice_ticks(min(ends), max(ends))
    x, bottom = linear(ticks[0], ticks[-1], 38, WIDTH - 24), 8 + 15 * len(rows)
    parts = percent_axis(ticks, x, bottom)
    for index, row in enumerate(rows):
        y, a, b = 8 + 15 * (index + 0.5), x(row["accuracy_a"]), x(row["accuracy_b"])
        title = f"{row['name']}: A {percent(row['accuracy_a'])}, B {percent(row['accuracy_b'])}"
        loss = "" if a >= b else " loss"
        parts.append(titled(title, box(0, y - 6, WIDTH, 12, "hit"),
                            text(30, y + 4, row["name"], "end", "name"),
                            line(b, y, a, y, f"whisker{loss}"), dot(b, y, 3.5, "ring"),
                            dot(a, y, 3.5, f"dot{loss}")))
    return drawing(bottom + 24, label, *parts)


# -- learning curves -------------------------------------------------------------------------------


def curves(folds: Sequence[dict[str, Any]], train: str, val: str, label: str,
           mistakes: bool) -> Markup:
    """Columns `train` and `val` of each fold by epoch, on a logarithmic scale.

    mistakes: draw 1 - the value, in percent, for an accuracy. A 0 lies at the foot, which is
    labelled so. Empty if all values are 0.
    """
    series = [(kind, fold, [1 - value if mistakes else value for value in fold[column]])
              for fold in folds for kind, column in (("train", train), ("val", val))]
    positive = [value for _, _, values in series for value in values if value > 0]
    if not positive:
        return Markup("")
    perfect = any(value <= 0 for _, _, values in series for value in values)
    ticks = log_ticks(max(min(positive) / (2 if perfect else 1), 1e-6), max(positive))
    names = [f"{100 * tick:g}\u00a0%" if mistakes else f"{tick:g}" for tick in ticks]
    names[0] = "0" if perfect else names[0]
    last = max(fold["epoch"][-1] for fold in folds)
    x = linear(1, max(last, 2), 52, WIDTH - 12)
    y = logarithmic(ticks[0], ticks[-1], 196, 10)
    parts = [part for tick, name in zip(ticks, names, strict=True) for part in (
        line(52, y(tick), WIDTH - 12, y(tick), "grid"), text(46, y(tick) + 4, name, "end"))]
    parts += [text(x(tick), 214, f"{tick:g}", "middle") for tick in nice_ticks(1, last, 8)
              if 1 <= tick <= last and tick == int(tick)]
    for kind, fold, values in series:
        epoch, end = fold["epoch"][-1], values[-1]
        words = f"{percent(end)} mistakes" if mistakes else f"loss {end:.4f}"
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(fold["epoch"], values,
                                                               strict=True))
        parts.append(titled(
            f"{fold['model']}, seed {fold['seed']}, fold {fold['fold']}, {kind}: "
            f"{words} after {epoch:g} epochs",
            Markup('<polyline points="{}" class="curve {}"/>').format(path, kind),
            dot(x(epoch), y(end), 2.5, f"dot {kind}")))
    return drawing(234, label, *parts, text(WIDTH - 12, 230, "epoch", "end"))


# -- calibration and class balance -----------------------------------------------------------------


def reliability(bins: Sequence[dict[str, Any]], label: str) -> Markup:
    """Accuracy against confidence of each bin, with its interval; more rows make a larger dot."""
    x, y = linear(0, 1, 52, WIDTH - 20), linear(0, 1, 320, 12)
    most = max(entry["rows"] for entry in bins)
    parts = [part for tick in (0, 0.2, 0.4, 0.6, 0.8, 1.0) for part in (
        line(52, y(tick), WIDTH - 20, y(tick), "grid"),
        text(46, y(tick) + 4, percent(tick, 0), "end"),
        text(x(tick), 338, percent(tick, 0), "middle"))]
    parts.append(line(x(0), y(0), x(1), y(1), "reference"))
    for entry in bins:
        at, (low, high) = x(entry["confidence"]), entry["ci95"]
        title = (f"confidence {percent(entry['confidence'], 1)} on average: "
                 f"{percent(entry['accuracy'], 1)} right, {entry['rows']:,} rows")
        radius = 3 + 5 * math.sqrt(entry["rows"] / most)
        parts.append(titled(title, line(at, y(low), at, y(high), "whisker"),
                            dot(at, y(entry["accuracy"]), radius)))
    return drawing(360, label, *parts, text(WIDTH - 20, 356, "confidence", "end"))


def class_balance(rows: Sequence[dict[str, Any]], names: Sequence[str], label: str) -> Markup:
    """Predicted number of each class as a bar, the expected range as a bracket."""
    ticks = nice_ticks(0, max(max(row["predicted"], row["high"]) for row in rows))
    x, bottom = linear(0, ticks[-1], 36, WIDTH - 24), 8 + 26 * len(rows)
    parts = [part for tick in ticks for part in (
        line(x(tick), 4, x(tick), bottom, "grid"),
        text(x(tick), bottom + 16, f"{tick:,.0f}", "middle"))]
    for index, row in enumerate(rows):
        y, name = 8 + 26 * (index + 0.5), names[row["class"]]
        low, high = x(row["low"]), x(row["high"])
        inside = row["low"] <= row["predicted"] <= row["high"]
        title = (f"{name}: {row['predicted']:,} predicted, {row['low']:,.0f} to "
                 f"{row['high']:,.0f} expected")
        parts.append(titled(title, text(28, y + 4, name, "end", "name"),
                            box(36, y - 7, x(row["predicted"]) - 36, 14,
                                "bar" if inside else "bar out"),
                            line(low, y, high, y, "bracket"),
                            line(low, y - 5, low, y + 5, "bracket"),
                            line(high, y - 5, high, y + 5, "bracket")))
    return drawing(bottom + 24, label, *parts)
