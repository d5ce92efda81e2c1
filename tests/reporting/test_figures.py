import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.reporting import figures


def parsed(svg):
    return ElementTree.fromstring(str(svg))


def titles(svg):
    return [title.text for title in parsed(svg).iter("title")]


@given(st.floats(0, 0.999), st.floats(0.0001, 1))
def test_nice_ticks_enclose_what_is_drawn(low, span):
    ticks = figures.nice_ticks(low, low + span)
    assert ticks[0] <= low + 1e-6 * span and ticks[-1] >= low + span - 1e-6 * span
    assert 2 <= len(ticks) <= 8 and ticks == sorted(set(ticks))


@given(st.floats(1e-5, 1), st.floats(1, 1000))
def test_log_ticks_enclose_what_is_drawn(low, factor):
    ticks = figures.log_ticks(low, low * factor)
    assert ticks[0] <= low and ticks[-1] >= low * factor * 0.999 and len(ticks) <= 10


def test_tick_labels_differ_from_each_other():
    for ticks in ([0.98, 0.985, 0.99], [0.9, 0.95, 1.0], [0.9968, 0.997, 0.9972], [0.0, 1.0]):
        labels = figures.percents(ticks)
        assert len(set(labels)) == len(ticks)
    assert figures.percents([0.98, 0.985]) == ["98.0\u00a0%", "98.5\u00a0%"]


def test_intervals_say_their_numbers_and_stay_inside():
    rows = [{"name": "<b>", "value": 0.991, "ci95": [0.985, 0.995], "note": "9 of 1000 wrong"},
            {"name": "fold 1", "value": 1.0, "ci95": [0.99, 1.0], "actual": 0.97}]
    svg = figures.intervals(rows, "two folds", reference=0.995)
    assert parsed(svg).get("role") == "img" and parsed(svg).get("aria-label") == "two folds"
    assert "<b>: 99.10\u00a0%, 95 % interval 98.50\u00a0% to 99.50\u00a0%; 9 of 1000 wrong" in titles(svg)
    positions = [float(circle.get("cx")) for circle in parsed(svg).iter("circle")]
    assert len(positions) == 3 and all(0 < x < figures.WIDTH for x in positions)
    assert positions[2] > positions[0]  # 100 % is further right


@pytest.mark.parametrize("gutter", [30, 60, 96, 165])
@given(st.floats(0.5, 0.999), st.floats(0.002, 0.4))
def test_the_labels_of_an_axis_do_not_overlap(gutter, low, span):
    row = {"name": "a", "value": low, "ci95": [low, min(1.0, low + span)]}
    svg = parsed(figures.intervals([row], "one", gutter=gutter))
    places = [float(text.get("x")) for text in svg.iter("text") if text.text.endswith("%")]
    labels = [text.text for text in svg.iter("text") if text.text.endswith("%")]
    for i, label in enumerate(labels[1:]):
        assert places[i + 1] - places[i] > 6 * len(label)


def test_a_perfect_score_has_a_place_on_a_logarithmic_scale():
    fold = {"model": "cnn", "seed": 0, "fold": 0, "epoch": [1, 2, 3], "accuracy": [0.9, 0.97, 1.0],
            "val_accuracy": [0.8, 0.9, 0.95]}
    svg = figures.curves([fold], "accuracy", "val_accuracy", "mistakes", True)
    assert "cnn, seed 0, fold 0, val: 5.00\u00a0% mistakes after 3 epochs" in titles(svg)
    assert "nan" not in svg and "inf" not in svg
    foot = next(text for text in parsed(svg).iter("text") if text.text == "0")  # not 2 %
    last = [circle for circle in parsed(svg).iter("circle") if circle.get("class") == "dot train"]
    assert abs(float(last[0].get("cy")) + 4 - float(foot.get("y"))) < 0.2
    worse = figures.curves([fold | {"accuracy": [0.9, 0.97, 0.98]}], "accuracy", "val_accuracy", "", True)
    assert not any(text.text == "0" for text in parsed(worse).iter("text"))


def test_one_epoch_is_a_dot():
    fold = {"model": "cnn", "seed": 0, "fold": 0, "epoch": [1], "loss": [0.5], "val_loss": [0.4]}
    assert len(list(parsed(figures.curves([fold], "loss", "val_loss", "loss", False)).iter("circle"))) == 2


def test_no_values_no_drawing():
    assert figures.curves([], "loss", "val_loss", "loss", False) == ""


def test_an_unexpected_class_balance_stands_out():
    rows = [{"class": 0, "predicted": 80, "expected": 50, "low": 40.2, "high": 59.8},
            {"class": 1, "predicted": 50, "expected": 50, "low": 40.2, "high": 59.8}]
    svg = figures.class_balance(rows, ["0", "1"], "balance")
    assert re.findall(r'class="(bar[^"]*)"', svg) == ["bar out", "bar"]


def test_dumbbells_mark_what_was_lost():
    svg = figures.dumbbells([{"name": "3", "accuracy_a": 0.9, "accuracy_b": 0.95}], "writers")
    assert titles(svg) == ["3: A 90.00\u00a0%, B 95.00\u00a0%"] and "dot loss" in svg


@pytest.mark.parametrize("rows", [1, 60_000])
def test_reliability_draws_every_bin(rows):
    bins = [{"confidence": 0.95, "accuracy": 0.9, "ci95": [0.8, 1.0], "rows": rows}] * 3
    assert len(list(parsed(figures.reliability(bins, "calibration")).iter("circle"))) == 3
