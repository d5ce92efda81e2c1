"""What a fold's training is given: its job, its data, and its random numbers.

Both dataclasses can be sent to any worker. Everything random in a fold is drawn from its job, so
that it does not matter who trains it.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

WEIGHTS, DROPOUT, ORDER, WARPS, CURVE = range(5)  # the streams of `FoldJob.rng`

EventCallback = Callable[[dict[str, Any]], None]  # called with each event of a training job


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
    why: str = ""  # the reason for a second try
    guesses: int = 0  # round of self-training; it goes on from the round before

    @property
    def key(self) -> str:
        """Its folder in a run folder: model/seed_s/fold_k, in self-training with /guesses_n."""
        fold = f"{self.model}/seed_{self.seed}/fold_{self.fold}"
        return f"{fold}/guesses_{self.guesses}" if self.guesses else fold

    @property
    def previous_round(self) -> "FoldJob":
        """The job whose trained model a round of self-training begins with."""
        return replace(self, guesses=self.guesses - 1)

    def rng(self, *stream: int) -> np.random.Generator:
        """The generator of one purpose of this job, the same on every machine."""
        entropy = [self.seed, self.fold, self.attempt, zlib.crc32(self.model.encode()), *stream]
        return np.random.default_rng([*entropy, 1_000 + self.guesses] if self.guesses else entropy)
