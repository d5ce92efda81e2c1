"""The registry of models: what can be trained, and with which recipe.

A `Recipe` holds the layers and all settings of the training. The baselines' layers are exactly
those of the tutorials; batch size and precision are the kit's. Every model takes pixels 0–255 and
ends in a softmax.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kit.core.errors import KitError
from kit.data.competition import Competition
from kit.training.augment import Augment

# Of a round of self-training; four, at twice the rate, gained no more (docs/lab-log.md, 2026-11-22)
GUESSES_EPOCHS = 2


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
    schedule: str = "constant"  # or "cosine": half of one, down to zero
    augment: Augment | None = None
    tta: int = 1  # test-time views
    label_spreading: bool = False  # rows of a file help to read each other (kit.training.spreading)
    parameters: int = 0  # for 28×28 pixels and ten classes, as tested
    mflops: float = 0.0  # million operations of one image's forward pass, likewise (see `flops`)
    cost: float = 1.0  # seconds of training per 60,000 images, on docs/benchmarks.md's two cores
    # On Kannada-MNIST's training writers, by models that never saw them: with label spreading where
    # the recipe has it, without self-training
    accuracy: float = 0.0
    # Likewise on the hardest eight of them (as `kit cv --split harder` ranks writers), by models
    # that learned from easier writers only. With label spreading, as it reads half of their
    # digits, since test.csv is half of eight writers' (docs/lab-log.md, 2026-11-29)
    hard_accuracy: float = 0.0

    def self_training(self) -> "Recipe":
        """The recipe of self-training: a few epochs, from a quarter of the rate down to zero."""
        return replace(self, epochs=GUESSES_EPOCHS, learning_rate=self.learning_rate / 4,
                       schedule="cosine")

    def hidden(self, pixels: Any) -> Any:
        """What the layers make of the pixels, scaled to 0–1: `(n, units)`."""
        x = pixels
        for layer in self.layers():
            x = layer(x)
        return x

    def build(self, competition: Competition) -> Any:
        """A Keras model: float32 `(n, h, w, 1)` pixels 0–255 → float32 `(n, n_classes)` probs.

        Its last layers are `logits` and `probs`.
        """
        import keras

        pixels = keras.Input((*competition.shape, 1), name="pixels")
        x = self.hidden(keras.layers.Rescaling(1 / 255)(pixels))
        logits = keras.layers.Dense(competition.n_classes, name="logits", dtype="float32")(x)
        return keras.Model(pixels, keras.layers.Softmax(name="probs", dtype="float32")(logits),
                           name=self.name)


def _mlp() -> list[Any]:
    """The multiclass-MNIST tutorial's network: 550,346 parameters."""
    from keras import layers

    from kit.training.layers import Dropout

    return [layers.Flatten(), layers.Dense(512, activation="relu"),
            layers.Dense(256, activation="relu"), Dropout(0.2),
            layers.Dense(64, activation="relu")]


def _cnn(drop_convs: float = 0.25, drop_dense: float = 0.5) -> list[Any]:
    """The Kannada tutorial's network: 887,530 parameters.

    Its relu before each pool comes after it here, on a quarter of the elements: the maximum of
    relus is the relu of the maximum, bit for bit, and a step takes 6 % less.
    """
    from keras import layers

    from kit.training.layers import Dropout

    def block(filters: int, size: int) -> list[Any]:
        return [layers.Conv2D(filters, size, padding="same", activation="relu"),
                layers.Conv2D(filters, size, padding="same"),
                layers.MaxPooling2D(), layers.Activation("relu"), Dropout(drop_convs)]

    return [*block(32, 5), *block(64, 3), layers.Flatten(), layers.Dense(256, activation="relu"),
            Dropout(drop_dense)]


def _strong() -> list[Any]:
    """Six convolutions 32-32-64-64-128-128, pooled thrice, then dense; five are normalised.

    The first kernel is 5×5, the others 3×3, and nothing is normalised at full size: the other way
    round a step took a fifth longer and the accuracy was no better. No dropout: wide augmentation
    is enough against overfitting, and dropout cost a thousandth of the hardest eight writers
    (docs/lab-log.md, 2026-11-22).
    """
    from keras import layers

    return [layers.Conv2D(32, 5, padding="same", activation="relu", kernel_initializer="he_normal"),
            *_conv(32, pool=True), *_conv(64), *_conv(64, pool=True),
            *_conv(128), *_conv(128, pool=True), *_dense(256)]


def _light() -> list[Any]:
    """Five convolutions 16-32-32-64-64, the first pooled at once; all normalised.

    At full size there is one input channel only, so an image costs a fifth of `strong`'s
    operations: more epochs where time is short. Half as wide again, with half of the epochs, was
    less accurate (docs/lab-log.md, 2026-11-25).
    """
    return [*_conv(16, size=5, pool=True), *_conv(32), *_conv(32, pool=True),
            *_conv(64), *_conv(64, pool=True), *_dense(128)]


def _deep() -> list[Any]:
    """Seven convolutions 32-64-64-64-128-128-128, the first pooled at once; all normalised."""
    return [*_conv(32, size=5, pool=True), *_conv(64), *_conv(64), *_conv(64, pool=True),
            *_conv(128), *_conv(128), *_conv(128, pool=True), *_dense(256)]


def _conv(filters: int, size: int = 3, pool: bool = False) -> list[Any]:
    """A convolution, pooled or not, normalised, then relu."""
    from keras import layers

    from kit.training.layers import BatchNorm

    convolution = layers.Conv2D(filters, size, padding="same", use_bias=False,
                                kernel_initializer="he_normal")
    return [convolution, *[layers.MaxPooling2D()] * pool, BatchNorm(), layers.Activation("relu")]


def _dense(units: int) -> list[Any]:
    """What lies between the last convolution and the logits: dense, normalised, then relu."""
    from keras import layers

    from kit.training.layers import BatchNorm

    return [layers.Flatten(),
            layers.Dense(units, use_bias=False, kernel_initializer="he_normal"), BatchNorm(),
            layers.Activation("relu")]


# Wide shifts and zooms with little rotation are what the competition's best entries have in common;
# the stronger the network, the wider.
WIDE = Augment(rotation=12, shear=8.6, zoom=0.22, shift=0.22)
WIDER = replace(WIDE, zoom=0.3, shift=0.3)

RECIPES = {recipe.name: recipe for recipe in (
    Recipe("mlp", "the multiclass-MNIST tutorial's MLP: the baseline of every run", _mlp,
           epochs=10, batch_size=128, optimizer="rmsprop", learning_rate=1e-3,
           parameters=550_346, mflops=1.099, cost=0.7, accuracy=0.9755,
           hard_accuracy=0.9453),
    Recipe("cnn", "the Kannada tutorial's CNN, unchanged", _cnn,
           epochs=6, batch_size=256, optimizer="adam", learning_rate=1e-3,
           parameters=887_530, mflops=64.682, cost=11, accuracy=0.9883,
           hard_accuracy=0.9638),
    Recipe("cnn_aug", "the same layers with affine augmentation, less dropout and a decaying rate",
           functools.partial(_cnn, drop_convs=0.1, drop_dense=0.3),
           epochs=14, batch_size=256, optimizer="adam", learning_rate=1.5e-3, schedule="cosine",
           tta=3, augment=WIDE,
           parameters=887_530, mflops=64.682, cost=11, accuracy=0.9929,
           hard_accuracy=0.9791),
    Recipe("light", "five normalised convolutions, pooled early: the most for little time", _light,
           epochs=12, batch_size=256, optimizer="adam", learning_rate=4e-3, schedule="cosine",
           tta=3, augment=WIDER,
           label_spreading=True, parameters=145_882, mflops=11.615,
           # The cost is that of a whole run (docs/lab-log.md, 2026-11-29).
           cost=3.4, accuracy=0.9960, hard_accuracy=0.9895),
    Recipe("strong", "six convolutions, five normalised, with wider augmentation, for longer",
           _strong, epochs=16, batch_size=256, optimizer="adam", learning_rate=4e-3,
           schedule="cosine", tta=3, augment=WIDER,
           label_spreading=True, parameters=586_698, mflops=59.652, cost=16, accuracy=0.9959,
           hard_accuracy=0.9920),
    Recipe("deep", "seven convolutions, pooled early, all normalised: for a night", _deep,
           epochs=16, batch_size=256, optimizer="adam", learning_rate=4e-3, schedule="cosine",
           tta=3, augment=WIDER,
           label_spreading=True, parameters=762_538, mflops=74.103, cost=18, accuracy=0.9961,
           hard_accuracy=0.9899),
)}
BASELINE = "mlp"


def get(name: str) -> Recipe:
    """The recipe of that name. KitError for an unknown one."""
    try:
        return RECIPES[name]
    except KeyError:
        raise KitError(f"there is no model {name!r}",
                       f"choose from: {', '.join(RECIPES)} (see kit models)") from None


def flops(model: Any) -> int:
    """Operations of one image's forward pass.

    Two for each multiply-add of its convolutions and dense layers. Those inside of a layer of the
    user's own are not counted, since Keras does not know their sizes.
    """
    total = 0
    for layer in model.layers:
        if hasattr(layer, "layers"):  # a model in the model
            total += flops(layer)
            continue
        kernels = [getattr(layer, name)
                   for name in ("kernel", "depthwise_kernel", "pointwise_kernel")
                   if hasattr(layer, name)]
        total += sum(2 * math.prod(kernel.shape) * math.prod(layer.output.shape[1:-1])
                     for kernel in kernels)
    return total


def table() -> list[dict[str, Any]]:
    """What `kit models` shows: size and cost of each recipe."""
    return [row(recipe) for recipe in RECIPES.values()]


def row(recipe: Recipe) -> dict[str, Any]:
    """Size and cost of a recipe; None for what was never measured."""
    return {"model": recipe.name, "about": recipe.about, "parameters": recipe.parameters,
            "flops_per_image": 1e6 * recipe.mflops, "epochs": recipe.epochs,
            "seconds_per_60000_images": recipe.cost if recipe.accuracy else None,
            "accuracy": recipe.accuracy or None, "hard_accuracy": recipe.hard_accuracy or None}


FOOTNOTES = ("* accuracy: on Kannada-MNIST's writers, by models that never saw them; hard writers: "
             "on the eight hardest,", "  by models trained on easier ones only")


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The table for a terminal."""
    width = name_width(rows)
    head = (f"{'model':<{width}}{'parameters':>12}{'MFLOP/image':>13}{'epochs':>8}{'s/epoch*':>10}"
            f"{'hard writers*':>15}{'accuracy*':>11}  about")
    body = [f"{row['model']:<{width}}{row['parameters']:>12,}{row['flops_per_image'] / 1e6:>13.1f}"
            f"{row['epochs']:>8}{cell(row['seconds_per_60000_images'], 1):>10}"
            f"{cell(row['hard_accuracy'], 4):>15}{cell(row['accuracy'], 4):>11}  {row['about']}"
            for row in rows]
    return [head, *body, "* s/epoch: 60,000 images on the two cores of docs/benchmarks.md, both "
            "busy; on yours: kit models --measure", *FOOTNOTES]


def name_width(rows: Sequence[Mapping[str, Any]]) -> int:
    """Of the column of names."""
    return max(10, *(len(row["model"]) + 2 for row in rows))


def cell(value: float | None, digits: int) -> str:
    """A number of a table, or that it was never measured."""
    return "not known" if value is None else f"{value:.{digits}f}"
