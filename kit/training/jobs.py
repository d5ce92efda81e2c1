"""What a fold's training is given: its job, its data, and its random numbers.

In go names and arrays; out come two small dataclasses that travel to any worker. Everything random in a fold is drawn
from its job, so that it does not matter who trains it.
"""

import zlib
from dataclasses import dataclass, replace

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
    guesses: int = 0  # round of self-training: goes on from the round before, with the guessed test rows as well

    @property
    def key(self) -> str:
        """Where it lies in a run folder: model/seed_s/fold_k, and below it a folder for each round of self-training."""
        return f"{self.model}/seed_{self.seed}/fold_{self.fold}" + (f"/guesses_{self.guesses}" if self.guesses else "")

    @property
    def before(self) -> "FoldJob":
        """The job whose trained model a round of self-training begins with."""
        return replace(self, guesses=self.guesses - 1)

    def rng(self, *stream: int) -> np.random.Generator:
        """The generator of one purpose of this job, the same on every machine."""
        entropy = [self.seed, self.fold, self.attempt, zlib.crc32(self.model.encode()), *stream]
        return np.random.default_rng([*entropy, 1_000 + self.guesses] if self.guesses else entropy)
