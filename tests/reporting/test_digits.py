"""The pictures of digits show the digits that they say."""

import dataclasses
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from kit.core.errors import KitError
from kit.data.competition import KANNADA
from kit.data.source import download
from kit.reporting import digits
from tests.data.tiny import TINY, write_folder


@pytest.fixture
def data(tmp_path):
    return download(TINY, write_folder(tmp_path / "given"), tmp_path / "data")


def parse(svg):
    """The drawing as XML, in which every <image> is a whole PNG."""
    root = ElementTree.fromstring(str(svg))
    assert root.get("role") == "img" and root.get("aria-label")
    return root, [element for element in root.iter() if element.tag.endswith("}image")]


def words(root):
    return [element.text for element in root.iter() if element.tag.endswith("}text")]


# -- one digit -------------------------------------------------------------------------------------


def test_a_digit_as_text():
    image = np.array([[255, 0, 255, 0], [255, 0, 0, 255], [0, 0, 0, 97]], np.uint8)
    assert digits.digit_as_text(image) == "█ ▀▄\n   ▀"
    assert digits.digit_as_text(image[:1, :2], colours=True) == \
        "\x1b[38;5;255;48;5;232m▀\x1b[38;5;232;48;5;232m▀\x1b[0m"


def test_a_digit_of_the_training_file(data):
    image, label = digits.read_digit(13, data)
    assert label == 3
    np.testing.assert_array_equal(image, data.train().pixels[13].reshape(2, 3))


@pytest.mark.parametrize("row", [-1, 200, 10**12])
def test_a_row_that_is_not_there(data, row):
    with pytest.raises(KitError, match=f"has no row {row}: it has 200, counted from 0") as caught:
        digits.read_digit(row, data)
    assert "from 0 to 199" in caught.value.fix


def test_a_digit_as_a_file(data, tmp_path):
    image, _ = digits.read_digit(13, data)
    digits.write_digit(image, "3", "row 13", tmp_path / "digit.png")
    written = (tmp_path / "digit.png").read_bytes()
    assert written.startswith(b"\x89PNG") and written[16:24] == (30).to_bytes(4) + (20).to_bytes(4)
    digits.write_digit(image, "3", "row 13", tmp_path / "digit.svg")
    root, images = parse((tmp_path / "digit.svg").read_text())
    assert len(images) == 1 and words(root) == ["3"]
    with pytest.raises(KitError, match=r"neither \.png nor \.svg"):
        digits.write_digit(image, "3", "row 13", tmp_path / "digit.jpeg")


# -- many ------------------------------------------------------------------------------------------


def test_a_digit_of_each_class(data):
    root, images = parse(digits.class_gallery(data.train(), TINY))
    assert len(images) == 10 and words(root) == list("0123456789")


def test_class_balance():
    root, _ = parse(digits.class_count_chart(np.repeat(np.arange(10), np.arange(10) * 300), KANNADA))
    bars = [float(element.get("width")) for element in root.iter() if element.tag.endswith("}rect")]
    np.testing.assert_allclose(bars, 260 * np.arange(10) / 9, atol=0.06)
    assert words(root)[-1] == "2,700"


def test_a_grid_of_predictions(data):
    pixels = data.train().pixels[:36]
    predicted = [k % 10 for k in range(36)]
    root, images = parse(digits.prediction_gallery(pixels, predicted, TINY))
    assert len(images) == 36 and words(root) == [str(k % 10) for k in range(36)]
    assert {(image.get("x"), image.get("y")) for image in images} == \
        {(str(12 + 72 * i), str(72 * j)) for i in range(6) for j in range(6)}


def test_mistakes_stand_out_where_the_truth_is_known(data):
    root, _ = parse(digits.prediction_gallery(data.train().pixels[:4], [0, 1, 7, 3], TINY, [0, 1, 2, 3]))
    assert words(root) == ["0", "1", "7, not 2", "3"]
    assert [element.get("fill") == "currentColor" for element in root.iter()
            if element.tag.endswith("}text")] == [True, True, False, True]


def test_captions_cannot_become_markup(data):
    sly = dataclasses.replace(TINY, class_names=("<script>", *"123456789"))
    svg = str(digits.class_gallery(data.train(), sly))
    assert "<script>" not in svg and "&lt;script&gt;" in svg
    assert not re.search(r'href="(?!data:image/png)', svg)
