"""A few drawn digits to train on: 6 writers × 60."""

import numpy as np
import pytest

from kit.data.sample import draw_digits
from kit.training import fit


@pytest.fixture(scope="session")
def fold_data() -> fit.FoldData:
    digits = draw_digits(6, 60, seed=1, difficulty=(0.3, 0.0))
    rows = np.arange(360)
    return fit.FoldData(digits.pixels, digits.labels, rows[60:], rows[:60],
                        digits.pixels[:30], np.arange(100, 130), digits.pixels[:20])
