import pytest

from kit.reporting import page

NUMBERS = {"cv": {"ci95": [0.98, 0.99], "std": None, "<x>": 1}}


def test_a_number_carries_its_key_and_exact_value():
    num = page.lookup(NUMBERS)
    assert num("cv.ci95.1", "percent") == '<data value="0.99" data-key="cv.ci95.1">99.00\u00a0%</data>'
    assert "not known" in num("cv.std", "spread")
    assert "<x>" not in num("cv.<x>")


def test_a_number_that_is_not_there_is_an_error():
    with pytest.raises(KeyError):
        page.lookup(NUMBERS)("cv.mean")


def test_options_stay_in_one_piece_and_the_rest_is_escaped():
    assert page.keep_options_whole("a --split <b>") == 'a <span class="option">--split</span> &lt;b&gt;'


def test_more_mistakes_are_tinted_more():
    shade = page.shades([[9, 1, 4], [0, 9, 50], [2, 0, 9]])
    assert [shade(count) for count in (1, 50)] == ["0.10", "0.40"] and "0.10" < shade(4) < "0.40"
