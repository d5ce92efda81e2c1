"""Layers that do the same as Keras' own in less time on a CPU.

Each says what it replaces and what that cost. They are registered, so that `model.keras` loads in
safe mode wherever the kit is installed.
"""

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kit")
class Dropout(keras.layers.Layer):
    """Inverted dropout from eight random bits an element; `rate` is rounded to a multiple of 1/256.

    `keras.layers.Dropout` draws a float32 for each element, which took 20 % of the tutorial CNN's
    training step on two AMX cores; this one takes 5 % (docs/lab-log.md, 2026-11-21).
    """

    def __init__(self, rate: float, seed: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.rate, self.seed = rate, seed
        self.cut = round(rate * 256)
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def call(self, x: Any, training: bool = False) -> Any:
        if not training or self.cut == 0:
            return x
        keep = random_bytes(ops.shape(x), self.seed_generator) >= ops.cast(self.cut, "uint8")
        return x * ops.cast(keep, x.dtype) * ops.cast(256 / (256 - self.cut), x.dtype)

    def compute_output_shape(self, shape: tuple) -> tuple:
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@keras.saving.register_keras_serializable(package="kit")
class BatchNorm(keras.layers.Layer):
    """Batch normalisation over all axes but the last, in the layer's dtype, its statistics float32.

    Keras' own is not fused on a CPU: after each of six convolutions it made an epoch of 15 s last
    48 s; TensorFlow's FusedBatchNormV3, 24 s (on two cores). Other backends compute the same
    formula.
    """

    def __init__(self, momentum: float = 0.95, epsilon: float = 1e-3, **options: Any) -> None:
        super().__init__(**options)
        self.momentum, self.epsilon = momentum, epsilon

    def build(self, shape: tuple) -> None:
        def weight(name: str, initializer: str, trainable: bool) -> Any:
            return self.add_weight(shape=shape[-1:], initializer=initializer, name=name,
                                   trainable=trainable, dtype="float32", autocast=False)

        self.gamma, self.beta = weight("gamma", "ones", True), weight("beta", "zeros", True)
        self.mean, self.variance = weight("mean", "zeros", False), weight("variance", "ones", False)

    def call(self, x: Any, training: bool = False) -> Any:
        if not training:
            scale = self.gamma * ops.rsqrt(self.variance + self.epsilon)
            return x * ops.cast(scale, x.dtype) + ops.cast(self.beta - self.mean * scale, x.dtype)
        normalised, mean, variance = normalise(x, self.gamma, self.beta, self.epsilon)
        self.mean.assign(self.mean * self.momentum + mean * (1 - self.momentum))
        self.variance.assign(self.variance * self.momentum + variance * (1 - self.momentum))
        return normalised

    def compute_output_shape(self, shape: tuple) -> tuple:
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "epsilon": self.epsilon}


def normalise(x: Any, gamma: Any, beta: Any, epsilon: float) -> tuple[Any, Any, Any]:
    """`x` normalised over all axes but the last, and the float32 mean and variance of the batch."""
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_normalise(x, gamma, beta, epsilon)
    axes = list(range(len(x.shape) - 1))
    mean, variance = ops.moments(ops.cast(x, "float32"), axes)
    scale = gamma * ops.rsqrt(variance + epsilon)
    rows = math.prod(x.shape[axis] for axis in axes)
    unbiased = variance * (rows / max(rows - 1, 1))  # what TensorFlow's kernel returns
    return x * ops.cast(scale, x.dtype) + ops.cast(beta - mean * scale, x.dtype), mean, unbiased


def _tensorflow_normalise(x: Any, gamma: Any, beta: Any, epsilon: float) -> tuple[Any, Any, Any]:
    import tensorflow as tf

    images = x[:, None, None, :] if len(x.shape) == 2 else x
    none = tf.zeros([0])
    normalised, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=images, scale=gamma, offset=beta, mean=none, variance=none, epsilon=epsilon,
        is_training=True)
    return (normalised[:, 0, 0, :] if len(x.shape) == 2 else normalised), mean, variance


def random_bytes(shape: Any, generator: keras.random.SeedGenerator) -> Any:
    """uint8 tensor of `shape`, every value equally likely; advances the generator by one."""
    seed = generator.next()
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_bytes(shape, seed)
    import jax

    return jax.random.bits(seed, shape, "uint8")


def _tensorflow_bytes(shape: Any, seed: Any) -> Any:
    """Four bytes from each 32-bit word of TensorFlow's counter-based generator."""
    import tensorflow as tf

    size = tf.reduce_prod(shape)
    words = tf.random.stateless_uniform([(size + 3) // 4], tf.cast(seed, tf.int64), None, None,
                                        tf.int32)
    return tf.reshape(tf.reshape(tf.bitcast(words, tf.uint8), [-1])[:size], shape)
