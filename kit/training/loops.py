"""Run many training steps in one call, on TensorFlow and on JAX, and compile prediction.

The mathematics is the trainer's, in `keras.ops`. Here is only how each backend runs it many times
without going back to Keras for every step.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from kit.core.errors import KitError
from kit.training.augment import N_NUMBERS, warp

TrainingLoop = Callable[[Any, Any, np.ndarray, np.ndarray, np.ndarray], tuple[float, float]]


def training_loop(trainer: Any) -> TrainingLoop:
    """A function that makes s training steps and returns their mean loss and mean accuracy.

    It takes images, labels, order `(s, b)`, transforms `(s, b, N_NUMBERS)` and rates `(s,)`.
    """
    import keras

    loops = {"tensorflow": _tensorflow_training, "jax": _jax_training}
    if keras.backend.backend() not in loops:
        raise KitError(f"the Keras backend {keras.backend.backend()!r} cannot train here",
                       "set KERAS_BACKEND to tensorflow or jax")
    return loops[keras.backend.backend()](trainer)


def _tensorflow_training(trainer: Any) -> TrainingLoop:
    import tensorflow as tf

    variables, optimizer = trainer.net.trainable_variables, trainer.optimizer

    def step(images, labels, order, transforms, rate):
        with tf.GradientTape() as tape:
            logits = trainer.net(trainer.augmented(tf.gather(images, order), transforms), training=True)
            loss, hits = trainer.cross_entropy(logits, tf.gather(labels, order))
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
        return losses / tf.cast(steps, tf.float32), hits / tf.cast(steps * trainer.batch_size, tf.float32)

    def train(*arrays: Any) -> tuple[float, float]:
        loss, accuracy = run(*arrays)
        return float(loss), float(accuracy)

    return train


def _jax_training(trainer: Any) -> TrainingLoop:
    import jax

    net, optimizer = trainer.net, trainer.optimizer
    rate_index = next(i for i, v in enumerate(optimizer.variables) if v is optimizer.learning_rate)

    def loss_of(trainable, others, images, labels, transforms):
        logits, others = net.stateless_call(trainable, others, trainer.augmented(images, transforms), training=True)
        loss, hits = trainer.cross_entropy(logits, labels)
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
            lambda state, batch: step(state, images, labels, *batch), state, (order, transforms, rates))
        return state, losses.mean(), hits.sum() / order.size

    single = jax.jit(step)

    def unrolled(state, images, labels, order, transforms, rates):
        images, labels, done = jax.numpy.asarray(images), jax.numpy.asarray(labels), []
        for rows, warps, rate in zip(order, transforms, rates, strict=True):
            state, sums = single(state, images, labels, rows, warps, rate)
            done.append(sums)
        losses, hits = (sum(float(value) for value in values) for values in zip(*done, strict=True))
        return state, losses / len(order), hits / order.size

    # On a CPU, XLA computes the convolutions inside a scan's loop without its fast kernels and threads.
    run = unrolled if jax.default_backend() == "cpu" else scanned

    def train(*arrays: Any) -> tuple[float, float]:
        groups = (net.trainable_variables, net.non_trainable_variables, optimizer.variables)
        state, loss, accuracy = run(tuple([v.value for v in group] for group in groups), *arrays)
        for group, values in zip(groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        return float(loss), float(accuracy)

    return train


def prediction(model: Any, shape: tuple[int, int]) -> Callable[[np.ndarray, np.ndarray | None], np.ndarray]:
    """`(uint8 images (n, h, w, 1), one transform (8,) or None) → float32 probs (n, n_classes)`, compiled once per n."""
    import keras
    from keras import ops

    def straight(images):
        return model(ops.cast(images, "float32"), training=False)

    def viewed(images, transform):
        transforms = ops.broadcast_to(transform, (ops.shape(images)[0], 8))
        return model(warp(ops.cast(images, "float32"), transforms), training=False)

    if keras.backend.backend() == "jax":
        import jax

        compiled = _jax_stateless(jax, model, straight), _jax_stateless(jax, model, viewed)
    else:
        import tensorflow as tf

        images = tf.TensorSpec((None, *shape, 1), tf.uint8)
        compiled = (tf.function(straight, autograph=False, input_signature=[images]),
                    tf.function(viewed, autograph=False, input_signature=[images, tf.TensorSpec((8,))]))

    def predict(images: np.ndarray, transform: np.ndarray | None) -> np.ndarray:
        probs = compiled[0](images) if transform is None else compiled[1](images, transform)
        return ops.convert_to_numpy(probs)

    return predict


def _jax_stateless(jax: Any, model: Any, function: Callable) -> Callable:
    """`function`, jitted with the model's variables as arguments: jit would keep the first values as constants."""
    import keras

    @jax.jit
    def pure(values, *arrays):
        with keras.StatelessScope(state_mapping=list(zip(model.variables, values, strict=True))):
            return function(*arrays)

    return lambda *arrays: pure([variable.value for variable in model.variables], *arrays)
