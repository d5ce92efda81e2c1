"""A few drawn digits to train on, and a network small enough to train on them in a second."""

import dataclasses

import numpy as np
import pytest

from kit.data.sample import draw_digits
from kit.training import models
from kit.training.jobs import FoldData


def _tiny_layers():
    from keras import layers

    from kit.training.layers import Dropout

    return [layers.Conv2D(4, 3, strides=2, activation="relu"), Dropout(0.25), layers.Flatten(),
            layers.Dense(16, activation="relu"), Dropout(0.5)]


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """A recipe with all that random numbers decide (augmentation, dropout, order), among the registered ones."""
    recipe = dataclasses.replace(models.get("cnn_aug"), name="tiny", layers=_tiny_layers, tta=2)
    models.RECIPES["tiny"] = recipe
    yield recipe
    del models.RECIPES["tiny"]


@pytest.fixture(scope="session")
def fold_data() -> FoldData:
    """6 writers × 60 digits, the first writer held out."""
    digits = draw_digits(6, 60, seed=1, difficulty=(0.3, 0.0))
    rows = np.arange(360)
    return FoldData(digits.pixels, digits.labels, rows[60:], rows[:60],
                        digits.pixels[:30], np.arange(100, 130), digits.pixels[:20])
