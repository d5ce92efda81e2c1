import re
from xml.etree import ElementTree

from kit.data.competition import DIGIT_RECOGNIZER, KANNADA
from kit.data.strokes import GLYPHS
from kit.reporting import numerals


def test_a_path_passes_through_the_points_of_its_stroke():
    stroke = GLYPHS[0][0].strokes[0]
    path = numerals.bezier(stroke)
    ends = [tuple(map(float, end.split()[-2:])) for end in re.split("[MC]", path)[1:]]
    assert ends == list(stroke)


def test_a_corner_is_no_segment():
    assert numerals.bezier(((0, 0), (1, 0), (1, 0), (1, 1))).count("C") == 2


def test_ten_symbols_for_kannada_and_none_for_others():
    svg = ElementTree.fromstring(str(numerals.symbols(KANNADA.class_names)))
    assert [symbol.get("id") for symbol in svg] == [f"numeral-{k}" for k in range(10)]
    assert len({path.get("d") for path in svg.iter("path")}) == 10
    assert numerals.symbols(DIGIT_RECOGNIZER.class_names) == ""


def test_kannada_numerals_are_named_by_digits_and_other_classes_by_name():
    assert numerals.plain_names(KANNADA.class_names) == list("0123456789")
    assert numerals.plain_names(["shoe", "bag"]) == ["shoe", "bag"]
