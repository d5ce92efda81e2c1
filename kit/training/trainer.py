"""A model with its optimizer and compiled training loop, used for one fold after the other.

Building a Keras model anew for each fold would leak some 10 MB each time, so a process keeps one
trainer per recipe and resets it. What needs no training uses `kit.training.predict.Predictor`
alone. The mathematics of a step is `Trainer`'s, in `keras.ops`; the loops below only run it many
times on TensorFlow or JAX without going back to Keras for every step.
"""

import contextlib
import functools
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from kit.core import backend
from kit.core.config import model_spec
from kit.core.errors import KitError
from kit.data.competition import Competition
from kit.training import own_code
from kit.training.augment import N_NUMBERS, Augment
from kit.training.jobs import DROPOUT, WEIGHTS, FoldJob
from kit.training.models import Recipe
from kit.training.own_models import OwnRecipe
from kit.training.predict import Predictor

# Makes s training steps, and returns their mean loss and mean accuracy. It takes images, labels,
# order (s, b), transforms (s, b, N_NUMBERS) and rates (s,).
TrainingLoop = Callable[[Any, Any, np.ndarray, np.ndarray, np.ndarray], tuple[float, float]]


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
        loops = {"tensorflow": _tensorflow_loop, "jax": _jax_loop}
        if keras.backend.backend() not in loops:
            raise KitError(f"the Keras backend {keras.backend.backend()!r} cannot train here",
                           "set KERAS_BACKEND to tensorflow or jax")
        loop = loops[keras.backend.backend()](self)

        def train(*arrays: Any) -> tuple[float, float]:
            with self.blame():
                return loop(*arrays)

        self.train: TrainingLoop = train

    def blame(self) -> contextlib.AbstractContextManager:
        """A context in which an error of a model of the user's own is named by its file."""
        if not isinstance(self.recipe, OwnRecipe):
            return contextlib.nullcontext()
        return own_code.blame(self.recipe.file, f"{model_spec(self.recipe.name)}, while it trains",
                              "correct it there; if memory is short, --batch-size may be smaller")

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
        if isinstance(self.recipe, OwnRecipe):
            # It may have layers of any kind, whose weights come from seeds that Keras draws from
            # Python's generator while the model is built.
            outside = random.getstate()
            random.seed(int(job.rng(WEIGHTS).integers(2**31)))
            try:
                fresh = self.build_model()
            finally:
                random.setstate(outside)
            for variable, new in zip(self.model.variables, fresh.variables, strict=True):
                variable.assign(new.value)
            return
        layers = [layer for layer in self.net.layers if hasattr(layer, "kernel_initializer")]
        for i, layer in enumerate(layers):
            seed = int(job.rng(WEIGHTS, i).integers(2**31))
            settings = layer.kernel_initializer.get_config() | {"seed": seed}
            layer.kernel.assign(type(layer.kernel_initializer)(**settings)(layer.kernel.shape))

    def seed_dropout(self, job: FoldJob, step: int) -> None:
        """Set dropout's generators to their state before `step`: each use adds one to word two."""
        states = [each for each in self.net.variables if each.name == "seed_generator_state"]
        for i, state in enumerate(states):
            state.assign([int(job.rng(DROPOUT, i).integers(2**31)), step])

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

    def with_penalties(self, loss: Any, penalties: list[Any]) -> Any:
        """The loss and those of layers with a regularizer, which only models of one's own have."""
        from keras import ops

        return sum((ops.cast(penalty, "float32") for penalty in penalties), loss)


@functools.lru_cache(maxsize=8)
def trainer_for(recipe: Recipe, competition: Competition, precision: str,
                batch_size: int) -> Trainer:
    """The trainer of these settings, built once in a process."""
    return Trainer(recipe, competition, precision, batch_size)


def try_step(recipe: Recipe, competition: Competition) -> Any:
    """Make one training step on empty images, and return the model.

    KitError for a recipe of the user's own that cannot be trained.
    """
    backend.configure_devices()
    n, (height, width) = 2, competition.shape
    trainer = trainer_for(recipe, competition, "float32", n)
    augment = recipe.augment or Augment()
    trainer.train(np.zeros((n, height, width, 1), "uint8"), np.zeros(n, "int32"),
                  np.arange(n, dtype="int32")[None],
                  augment.draw(np.random.default_rng(0), n, competition.shape)[None],
                  np.zeros(1, "float32"))
    return trainer.model


# -- many steps in one call ------------------------------------------------------------------------


def _tensorflow_loop(trainer: Trainer) -> TrainingLoop:
    import tensorflow as tf

    variables, optimizer = trainer.net.trainable_variables, trainer.optimizer

    def step(images, labels, order, transforms, rate):
        with tf.GradientTape() as tape:
            batch = trainer.augmented(tf.gather(images, order), transforms)
            logits = trainer.net(batch, training=True)
            loss, hits = trainer.cross_entropy(logits, tf.gather(labels, order))
            loss = trainer.with_penalties(loss, trainer.net.losses)
            scaled = optimizer.scale_loss(loss)
        optimizer.learning_rate.assign(rate)
        optimizer.apply(tape.gradient(scaled, variables), variables)
        return loss, hits

    @tf.function(autograph=False, reduce_retracing=True, input_signature=[
        tf.TensorSpec((None, *trainer.shape, 1), tf.uint8), tf.TensorSpec((None,), tf.int32),
        tf.TensorSpec((None, trainer.batch_size), tf.int32),
        tf.TensorSpec((None, None, N_NUMBERS)), tf.TensorSpec((None,))])
    def run(images, labels, order, transforms, rates):
        def body(i, losses, hits):
            loss, right = step(images, labels, order[i], transforms[i], rates[i])
            return i + 1, losses + loss, hits + right

        steps = tf.shape(order)[0]
        start = (tf.constant(0), tf.constant(0.0), tf.constant(0.0))
        _, losses, hits = tf.while_loop(lambda i, *_: i < steps, body, start, parallel_iterations=1)
        rows = tf.cast(steps * trainer.batch_size, tf.float32)
        return losses / tf.cast(steps, tf.float32), hits / rows

    def train(*arrays: Any) -> tuple[float, float]:
        loss, accuracy = run(*arrays)
        return float(loss), float(accuracy)

    return train


def _jax_loop(trainer: Trainer) -> TrainingLoop:
    import jax

    net, optimizer = trainer.net, trainer.optimizer
    rate_index = next(i for i, v in enumerate(optimizer.variables) if v is optimizer.learning_rate)

    def loss_of(trainable, others, images, labels, transforms):
        batch = trainer.augmented(images, transforms)
        logits, others, penalties = net.stateless_call(trainable, others, batch, training=True,
                                                       return_losses=True)
        loss, hits = trainer.cross_entropy(logits, labels)
        loss = trainer.with_penalties(loss, penalties)
        return loss, (loss, hits, others)

    def step(state, images, labels, rows, warps, rate):
        trainable, others, slots = state
        slots = [rate if i == rate_index else slot for i, slot in enumerate(slots)]
        gradients, (loss, hits, others) = jax.grad(loss_of, has_aux=True)(
            trainable, others, images[rows], labels[rows], warps)
        trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
        return (trainable, others, slots), (loss, hits)

    @jax.jit
    def scanned(state, images, labels, order, transforms, rates):
        state, (losses, hits) = jax.lax.scan(
            lambda state, batch: step(state, images, labels, *batch), state,
            (order, transforms, rates))
        return state, losses.mean(), hits.sum() / order.size

    single = jax.jit(step)

    def unrolled(state, images, labels, order, transforms, rates):
        images, labels, done = jax.numpy.asarray(images), jax.numpy.asarray(labels), []
        for rows, warps, rate in zip(order, transforms, rates, strict=True):
            state, sums = single(state, images, labels, rows, warps, rate)
            done.append(sums)
        losses, hits = (sum(float(value) for value in values) for values in zip(*done, strict=True))
        return state, losses / len(order), hits / order.size

    # On a CPU, XLA computes the convolutions inside a scan's loop without its fast kernels and
    # threads.
    run = unrolled if jax.default_backend() == "cpu" else scanned

    def train(*arrays: Any) -> tuple[float, float]:
        groups = (net.trainable_variables, net.non_trainable_variables, optimizer.variables)
        state, loss, accuracy = run(tuple([v.value for v in group] for group in groups), *arrays)
        for group, values in zip(groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        return float(loss), float(accuracy)

    return train
