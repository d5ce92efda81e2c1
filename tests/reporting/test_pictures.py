import base64
import io

import numpy as np
import pytest
from PIL import Image

from kit.reporting import pictures


def read(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


@pytest.mark.parametrize("shape", [(28, 28), (5, 7), (1, 1)])
def test_a_png_reads_back_to_the_nearest_of_16_levels(shape):
    original = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    assert np.abs(read(pictures.png(original)).astype(int) - original).max() <= 8


def test_black_stays_black_and_white_white():
    assert read(pictures.png(np.array([[0, 255]], np.uint8))).tolist() == [[0, 255]]


def test_a_data_uri_holds_the_png():
    row = np.arange(784).astype(np.uint8)
    head, data = pictures.data_uri(row, (28, 28)).split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == pictures.png(row.reshape(28, 28))
