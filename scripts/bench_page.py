"""The tables of docs/benchmarks.md from the numbers of scripts/bench.py.

They stand between two markers of the page, the rest of which is written by hand. A row without a
number says so.
"""

import re
import statistics
from pathlib import Path
from typing import Any

from kit.core.errors import KitError

BEGIN, END = "<!-- made by scripts/bench.py: -->\n", "<!-- end of what scripts/bench.py made -->\n"
HEAD = ("|  | median | from – to | × first row | share of peak | peak MiB | rounds |\n"
        "|---|---:|---:|---:|---:|---:|---:|\n")


def tables(rows: list[Any], groups: dict[str, str], results: dict[str, Any]) -> str:
    """All groups' tables, with the machine above them."""
    parts = [_machine(results)]
    for group, title in groups.items():
        own = [row for row in rows if row.group == group]
        lines = "".join(_line(row, own[0], results["rows"]) for row in own)
        parts.append(f"### {title}\n\n{HEAD}{lines}")
    return "\n".join(parts)


def _machine(results: dict[str, Any]) -> str:
    about = results["machine"]
    if not about:
        return "Nothing has been measured yet: `python scripts/bench.py` does.\n"
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    gpus = ", ".join(about["gpus"]) or "no GPU"
    said = [f"{about['cpu']}, {about['cpu_cores']} cores, {gpus}; Python {about['python']}, "
            f"{versions}; last measured {results['measured']} by `python scripts/bench.py`."]
    if about["quick"]:
        said.append("**Tiny sizes (--quick): these numbers show that it works, and no speed.**")
    if about["sample"]:
        said.append("**Measured on the drawn sample.**")
    return " ".join(said) + "\n"


def _line(row: Any, first: Any, measured: dict[str, Any]) -> str:
    entry = measured.get(row.id, {})
    rounds = entry.get("rounds", [])
    if not rounds:
        return f"| {row.what} | {entry.get('not measured', 'not measured yet')} | | | | | |\n"
    values = [taken["value"] for taken in rounds]
    accuracy = [taken["accuracy"] for taken in rounds if "accuracy" in taken]
    what = f"{row.what}: accuracy {statistics.median(accuracy):.4f}" if accuracy else row.what
    cells = [what, f"{_number(statistics.median(values))} {row.unit}",
             f"{_number(min(values))} – {_number(max(values))}", _ratio(row, first, measured),
             _share(rounds, measured), f"{max(taken['peak_mib'] for taken in rounds):,.0f}",
             str(len(values))]
    return f"| {' | '.join(cells)} |\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(row: Any, first: Any, measured: dict[str, Any]) -> str:
    """How many times as fast as the group's first row: the median over their common rounds."""
    rounds = measured.get(first.id, {}).get("rounds", [])
    base = {taken["round"]: taken["value"] for taken in rounds}
    ratios = [taken["value"] / base[taken["round"]] for taken in measured[row.id]["rounds"]
              if taken["round"] in base]
    if row is first or not ratios or row.unit == "%":
        return ""
    ratio = statistics.median(ratios)
    return f"{1 / ratio if row.unit == 's' else ratio:.2f}"


def _share(rounds: list[dict[str, Any]], measured: dict[str, Any]) -> str:
    """Of the peak of its precision: three times a forward pass's operations, times images a second.

    The peak is the best that was measured: what slows a product down are the machine's other users.
    """
    if "flops" not in rounds[0]:
        return ""
    peak = measured.get(f"peak/{rounds[0]['precision']}", {}).get("rounds", [])
    if not peak:
        return "peak not measured"
    rate = statistics.median(taken["value"] for taken in rounds) * rounds[0]["flops"] / 1e12
    return f"{rate / max(taken['value'] for taken in peak):.0%}"


def put(page: Path, text: str) -> None:
    """Replace what is between the markers of `page`. KitError if it has none."""
    old = page.read_text("utf-8") if page.is_file() else f"# Benchmarks\n\n{BEGIN}{END}"
    new, n = re.subn(f"({re.escape(BEGIN)}).*?({re.escape(END)})",
                     lambda found: found[1] + text + found[2], old, flags=re.DOTALL)
    if n != 1:
        raise KitError(f"{page} has no place for the tables",
                       f"put these two lines where they belong:\n{BEGIN}{END}")
    if new != old:
        page.write_text(new, "utf-8")
