"""Durations: as the command line takes them, and as people read them."""

import re

from kit.core.errors import KitError

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}  # seconds


def parse_duration(text: str) -> float:
    """The seconds in `110m`, `2h`, `90s` or `90`. KitError for anything else."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)([smh]?)", text.strip())
    if not match:
        raise KitError(f"{text!r} is no duration", "write it like 110m, 2h or 90s")
    return float(match[1]) * UNITS[match[2]]


def rounded_duration(seconds: float) -> str:
    """What is foreseen or left: `50 s`, `41 min`, `2 h 10 min`, `24 h`."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if minutes else f"{hours} h"


def measured_duration(seconds: float) -> str:
    """What something took: `7.5 s`, `1 min 15 s`, `1 h 6 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] * bool(hours) + [f"{minutes} min"] * bool(minutes)
    return " ".join(parts + [f"{rest} s"] * (not hours))
