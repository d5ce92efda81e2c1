"""Durations: as the command line takes them, and as people read them."""

import pytest

from kit.core.durations import measured_duration, parse_duration, rounded_duration
from kit.core.errors import KitError


@pytest.mark.parametrize(("text", "seconds"), [("110m", 6600), ("2h", 7200), (" 90s ", 90), ("90", 90), ("1.5h", 5400)])
def test_what_is_typed(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5m", "1h30m", "1e3", "5 m", "٣m"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(KitError, match="is no duration"):
        parse_duration(text)


@pytest.mark.parametrize(("seconds", "words"), [
    (0, "1 s"), (59.4, "59 s"), (99, "99 s"), (100, "2 min"), (5940, "99 min"), (7800, "2 h 10 min"),
    (6300, "1 h 45 min"), (86_400, "24 h")])
def test_what_is_foreseen_is_rounded(seconds, words):
    assert rounded_duration(seconds) == words


@pytest.mark.parametrize(("seconds", "words"), [
    (0.04, "0.0 s"), (9.94, "9.9 s"), (75.2, "1 min 15 s"), (3600, "1 h"), (4000, "1 h 6 min")])
def test_what_was_measured_is_exact(seconds, words):
    assert measured_duration(seconds) == words
