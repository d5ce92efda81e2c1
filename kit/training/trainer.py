"""A model with its optimizer and compiled training loop, used for one fold after the other.

Building a Keras model anew for each fold would leak some 10 MB each time, so a process keeps one
trainer per recipe and resets it. What needs no training uses `kit.training.predict.Predictor`
alone.
"""

import functools
from typing import Any

import numpy as np

from kit.data import competition as competitions
from kit.data.competition import Competition
from kit.training import loops
from kit.training.jobs import DROPOUT, WEIGHTS, FoldJob
from kit.training.models import Recipe
from kit.training.predict import Predictor


class Trainer(Predictor):
    """A model that can be trained again and again, from fresh weights or from a checkpoint's."""

    def __init__(self, recipe: Recipe, competition: Competition, precision: str,
                 batch_size: int) -> None:
        import keras

        super().__init__(recipe, competition, precision)
        self.batch_size = batch_size
        self.net = keras.Model(self.model.input, self.model.get_layer("logits").output)
        optimizer = keras.optimizers.get({"class_name": recipe.optimizer,
                                          "config": {"learning_rate": recipe.learning_rate}})
        if precision == "float16":  # its gradients underflow unless the loss is scaled up
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        self.optimizer = optimizer
        self.optimizer.build(self.net.trainable_variables)
        self.variables = [*self.net.variables, *self.optimizer.variables]
        self._untrained = self.snapshot()
        self.train = loops.training_loop(self)

    def snapshot(self) -> list[np.ndarray]:
        """The values of every variable of network and optimizer, in a fixed order."""
        values = [variable.value for variable in self.variables]
        return [np.asarray(value.numpy() if hasattr(value, "numpy") else value) for value in values]

    def restore(self, snapshot: list[np.ndarray]) -> None:
        """Put back what `snapshot` returned."""
        for variable, value in zip(self.variables, snapshot, strict=True):
            variable.assign(value)

    def reset(self, job: FoldJob) -> None:
        """Fresh weights from the job's seed, and an optimizer that has made no step."""
        self.restore(self._untrained)
        layers = [layer for layer in self.net.layers if hasattr(layer, "kernel_initializer")]
        for i, layer in enumerate(layers):
            seed = int(job.rng(WEIGHTS, i).integers(2**31))
            settings = layer.kernel_initializer.get_config() | {"seed": seed}
            layer.kernel.assign(type(layer.kernel_initializer)(**settings)(layer.kernel.shape))

    def seed_dropout(self, job: FoldJob, step: int) -> None:
        """Set dropout's generators to their state before `step`: each use adds one to word two."""
        layers = [layer for layer in self.net.layers if hasattr(layer, "seed_generator")]
        for i, layer in enumerate(layers):
            layer.seed_generator.state.assign([int(job.rng(DROPOUT, i).integers(2**31)), step])

    def augmented(self, images: Any, transforms: Any) -> Any:
        """uint8 images → float32 0–255, augmented where the recipe asks for it."""
        from keras import ops

        images = ops.cast(images, "float32")
        return self.recipe.augment.apply(images, transforms) if self.recipe.augment else images

    def cross_entropy(self, logits: Any, labels: Any) -> tuple[Any, Any]:
        """Mean cross-entropy of a batch, and how many of its rows are right; float32 scalars."""
        from keras import ops

        one_hot = ops.one_hot(labels, logits.shape[-1])
        loss = -ops.mean(ops.sum(one_hot * ops.log_softmax(logits), -1))
        hits = ops.cast(ops.argmax(logits, -1), "int32") == ops.cast(labels, "int32")
        return loss, ops.sum(ops.cast(hits, "float32"))


@functools.lru_cache(maxsize=8)
def trainer_for(recipe: Recipe, competition_slug: str, precision: str, batch_size: int) -> Trainer:
    """The trainer of these settings, built once in a process."""
    return Trainer(recipe, competitions.get(competition_slug), precision, batch_size)
