"""Draw the Kannada numerals ೦–೯ as small inline SVG, since few machines have a font for them.

The strokes are those of the drawn sample: a Catmull-Rom spline through hand-written points, which
is exactly a Bézier path. A page includes the symbols once and uses them by number.
"""

from collections.abc import Sequence

from markupsafe import Markup

from kit.data.strokes import GLYPHS, Stroke

PAD = 0.12  # around the strokes, in digit heights: half a pen's width and some air


def is_kannada(name: str) -> bool:
    return len(name) == 1 and "\u0ce6" <= name <= "\u0cef"


def value(name: str) -> int:
    """The number that a Kannada numeral stands for."""
    return ord(name) - ord("\u0ce6")


def plain_names(class_names: Sequence[str]) -> list[str]:
    """The names of the classes, with 0 to 9 for Kannada numerals, which few fonts have."""
    return [str(value(name)) if is_kannada(name) else name for name in class_names]


def bezier(stroke: Stroke) -> str:
    """The path of one stroke: control points a third along each tangent (Catmull and Rom 1974)."""
    ends = (stroke[0], *stroke, stroke[-1])
    path = [f"M{stroke[0][0]:g} {stroke[0][1]:g}"]
    for (x0, y0), (x1, y1), (x2, y2), (x3, y3) in zip(ends, ends[1:], ends[2:], ends[3:],
                                                      strict=False):
        if (x1, y1) != (x2, y2):  # a point given twice is a corner
            path.append(f"C{x1 + (x2 - x0) / 6:.3f} {y1 + (y2 - y0) / 6:.3f} "
                        f"{x2 - (x3 - x1) / 6:.3f} {y2 - (y3 - y1) / 6:.3f} {x2:g} {y2:g}")
    return "".join(path)


def symbols(class_names: Sequence[str]) -> Markup:
    """Hidden <symbol>s named numeral-0, numeral-1, … for the classes that are Kannada numerals."""
    drawn = []
    for k, name in enumerate(class_names):
        if is_kannada(name):
            strokes = GLYPHS[value(name)][0].strokes  # the most common way to write it
            middle = max(x for stroke in strokes for x, _ in stroke) / 2
            drawn.append(Markup(
                '<symbol id="numeral-{}" viewBox="{:g} {:g} {:g} {:g}"><path d="{}"/></symbol>'
            ).format(k, middle - 0.5 - PAD, -PAD, 1 + 2 * PAD, 1 + 2 * PAD,
                     "".join(map(bezier, strokes))))
    if not drawn:
        return Markup("")
    return Markup('<svg class="symbols" aria-hidden="true" focusable="false">{}</svg>').format(
        Markup("").join(drawn))
