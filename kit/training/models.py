"""The registry: what can be trained, and with which recipe.

In goes a name; out comes a `Recipe`: the layers, and everything that its training needs to know. The baselines' layers
are the tutorials', exactly; batch size and precision are the kit's. Every model takes pixels 0–255 and ends in a softmax.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kit.data.competition import Competition
from kit.errors import KitError
from kit.training.augment import Augment


@dataclass(frozen=True)
class Recipe:
    """How one model is built and trained."""

    name: str
    about: str
    layers: Callable[[], list[Any]]  # between the pixels, scaled to 0–1, and the logits
    epochs: int
    batch_size: int
    optimizer: str  # of keras.optimizers
    learning_rate: float
    schedule: str = "constant"  # or "cosine": linear warm-up, then down to zero
    warmup: float = 0.0  # share of all steps
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    augment: Augment | None = None
    ema: float | None = None  # momentum of the average of the weights, which then is what predicts
    tta: int = 1  # test-time views

    def build(self, competition: Competition) -> Any:
        """A Keras model: float32 `(n, h, w, 1)` pixels 0–255 → float32 `(n, n_classes)` probs; logits one layer before."""
        import keras

        pixels = keras.Input((*competition.shape, 1), name="pixels")
        x = keras.layers.Rescaling(1 / 255)(pixels)
        for layer in self.layers():
            x = layer(x)
        logits = keras.layers.Dense(competition.n_classes, name="logits", dtype="float32")(x)
        return keras.Model(pixels, keras.layers.Softmax(name="probs", dtype="float32")(logits), name=self.name)


def _mlp() -> list[Any]:
    """The multiclass-MNIST tutorial's network: 550,346 parameters."""
    from keras import layers

    return [layers.Flatten(), layers.Dense(512, activation="relu"), layers.Dense(256, activation="relu"),
            layers.Dropout(0.2), layers.Dense(64, activation="relu")]


def _cnn() -> list[Any]:
    """The Kannada tutorial's network: 887,530 parameters."""
    from keras import layers

    def conv(filters: int, size: int) -> Any:
        return layers.Conv2D(filters, size, padding="same", activation="relu")

    return [conv(32, 5), conv(32, 5), layers.MaxPooling2D(), layers.Dropout(0.25),
            conv(64, 3), conv(64, 3), layers.MaxPooling2D(strides=2), layers.Dropout(0.25),
            layers.Flatten(), layers.Dense(256, activation="relu"), layers.Dropout(0.5)]


RECIPES = {recipe.name: recipe for recipe in (
    Recipe("mlp", "the multiclass-MNIST tutorial's MLP: the baseline of every run", _mlp,
           epochs=10, batch_size=128, optimizer="rmsprop", learning_rate=1e-3),
    Recipe("cnn", "the Kannada tutorial's CNN, as told", _cnn,
           epochs=6, batch_size=128, optimizer="adam", learning_rate=1e-3),
    Recipe("cnn_aug", "the same layers with affine augmentation and a decaying rate", _cnn,
           epochs=15, batch_size=128, optimizer="adamw", learning_rate=2e-3, schedule="cosine", warmup=0.1,
           weight_decay=1e-2, label_smoothing=0.05,
           augment=Augment(rotation=10, shear=10, zoom=0.2, shift=0.2)),
)}
BASELINE = "mlp"


def get(name: str) -> Recipe:
    """The recipe of that name. KitError for an unknown one."""
    try:
        return RECIPES[name]
    except KeyError:
        raise KitError(f"there is no model {name!r}", f"choose from: {', '.join(RECIPES)} (see kit models)") from None


def flops(model: Any) -> int:
    """Floating-point operations of one image's forward pass: two for each multiply-add of convolutions and dense layers."""
    total = 0
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            outputs = layer.output.shape[1:-1]
            total += 2 * int(layer.kernel.size if hasattr(layer.kernel, "size") else 0) * _product(outputs)
    return total


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for side in shape:
        result *= side
    return result
