"""What a fold's training is given: its job, its data, and its random numbers.

In go names and arrays; out come two small dataclasses that travel to any worker. Everything random in a fold is drawn
from its job, so that it does not matter who trains it.
"""

import zlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FoldData:
    """What a fold trains on and predicts: uint8 pixels `(n, h·w)`, uint8 labels `(n,)`, row numbers, ids."""

    pixels: np.ndarray
    labels: np.ndarray
    train_rows: np.ndarray
    val_rows: np.ndarray
    test_pixels: np.ndarray | None = None
    test_ids: np.ndarray | None = None
    extra_pixels: np.ndarray | None = None


@dataclass(frozen=True)
class FoldJob:
    """One model to train: what, on which held-out part, from which seed, and for how long."""

    model: str
    seed: int
    fold: int
    epochs: int
    batch_size: int
    precision: str
    tta: int
    attempt: int = 0  # 1: the second try of a fold that went wrong, with other random numbers
    why: str = ""  # there is a second try

    @property
    def key(self) -> str:
        return f"{self.model}/seed_{self.seed}/fold_{self.fold}"

    def rng(self, *stream: int) -> np.random.Generator:
        """The generator of one purpose of this job, the same on every machine."""
        return np.random.default_rng([self.seed, self.fold, self.attempt, zlib.crc32(self.model.encode()), *stream])
