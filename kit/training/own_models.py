"""Models and augmentations of the user's own: a function of a file, with its recipe beside it.

    @kit.recipe(epochs=8, learning_rate=2e-3)
    def build():
        return [keras.layers.Flatten(), keras.layers.Dense(64, activation="relu")]

`--model my_model.py:build` trains it as `my_model-build`, which is what its folder, its row in a
report and its weights are called.
"""

import difflib
import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from kit.core.config import BOUNDS, RunConfig, model_spec
from kit.core.errors import KitError
from kit.data.competition import Competition
from kit.training import models, own_code
from kit.training.augment import N_NUMBERS, Augment
from kit.training.models import Recipe

SCHEDULES = ("constant", "cosine")
OPTIMIZERS = ("adam", "adamw", "nadam", "rmsprop", "sgd", "lion", "adafactor", "adagrad",
              "adadelta", "adamax", "ftrl", "lamb", "muon")
COST = models.RECIPES["cnn"].cost  # until it is measured, which a run does before it trains


# -- what the user's file says ---------------------------------------------------------------------


def recipe(function: Callable[[], Any] | None = None, /, *, epochs: int = 10, batch_size: int = 256,
           optimizer: str = "adam", learning_rate: float = 1e-3, schedule: str = "cosine",
           augment: Any = None, tta: int = 1, about: str = "",
           **unknown: Any) -> Any:
    """Decorate a function that returns layers with how they are trained; all of it has a default.

    schedule: constant, or cosine (half of one, down to zero). augment: a `kit.Augment`, or a
    function (see `as_augment`). tta: test-time views. KitError for a value that cannot be.
    """
    settings = {name: value for name, value in locals().items()
                if name not in ("function", "unknown")}
    for name in unknown:
        near = difflib.get_close_matches(name, settings, 1) or [
            each for each in settings if name == "".join(word[0] for word in each.split("_"))]  # lr
        raise KitError(f"a recipe has no {name!r}", f"did you mean {near[0]!r}?" if near
                       else f"it has {', '.join(settings)}")
    for name in ("epochs", "batch_size", "tta"):
        least, most = BOUNDS[name]
        value = settings[name]
        if type(value) is not int or not least <= value <= most:
            raise KitError(f"{name}={value!r:.60} is not a whole number from {least} to {most}",
                           f"write one, such as {name}={DEFAULTS[name]}")
    if type(learning_rate) not in (int, float) or not 0 < learning_rate < math.inf:
        raise KitError(f"learning_rate={learning_rate!r:.60} is not a number above 0",
                       f"write one, such as learning_rate={DEFAULTS['learning_rate']}")
    for name, choices in (("schedule", SCHEDULES), ("optimizer", OPTIMIZERS)):
        if settings[name] not in choices:
            near = difflib.get_close_matches(str(settings[name]), choices, 1)
            raise KitError(f"{name}={settings[name]!r:.60} is unknown",
                           f"did you mean {near[0]!r}?" if near
                           else f"choose one of: {', '.join(choices)}")
    if not isinstance(about, str):
        raise KitError(f"about={about!r:.60} is not text", "write a few words")

    def decorate(function: Callable[[], Any]) -> Callable[[], Any]:
        if not callable(function):
            raise KitError(f"a recipe was given to {_kind(function)}",
                           "write @kit.recipe(...) above a function that returns layers")
        function.__dict__["recipe"] = settings
        return function

    return decorate if function is None else decorate(function)


DEFAULTS = {name: each.default for name, each in inspect.signature(recipe).parameters.items()
            if each.kind is each.KEYWORD_ONLY}


def as_augment(value: Any, file: str, name: str) -> "Augment | None":
    """`value`, which `file` calls `name`, as an augmentation. KitError where it is none.

    It is an `Augment`, or a function of images `(n, h, w, 1)` float32 0–255 and numbers
    `(n, N_NUMBERS)` float32, uniform from −1 to 1 and drawn anew for each image, which returns
    images like those. It is compiled into the training step, so it is written in `keras.ops`; all
    that is random in it comes from the numbers, so that a resumed run draws them again.
    """
    if value is None or isinstance(value, OwnAugment):
        return value
    where, function = f"{file}:{name}", name if name.isidentifier() else "turned"
    if isinstance(value, Augment):
        for field in fields(Augment):
            width = getattr(value, field.name)
            if type(width) not in (int, float) or not 0 <= width < math.inf:
                raise KitError(f"{where}: {field.name}={width!r:.60} is not a number from 0 on",
                               f"write one, such as {field.name}=0.1")
        return value
    if not callable(value) or isinstance(value, type):
        raise KitError(f"{where} is {_kind(value)}, not an augmentation",
                       "make it a kit.Augment(rotation=10, shift=0.1) or a function: "
                       f"def {function}(images, numbers): … return images")
    try:
        inspect.signature(value).bind(None, None)
    except TypeError as error:
        raise KitError(f"{where} does not take images and numbers: {error}",
                       f"write def {function}(images, numbers): … return images") from error
    return OwnAugment(function=value, file=file, name=name)


@dataclass(frozen=True)
class OwnAugment(Augment):
    """A function of the user's own as an augmentation; see `as_augment`."""

    function: Callable[[Any, Any], Any] = lambda images, numbers: images
    file: str = ""
    name: str = ""

    def draw(self, rng: np.random.Generator, n: int, shape: tuple[int, int]) -> np.ndarray:
        return rng.uniform(-1.0, 1.0, (n, N_NUMBERS)).astype("float32")

    def apply(self, images: Any, numbers: Any) -> Any:
        from keras import ops

        where = f"{self.file}:{self.name}"
        with own_code.blame(self.file, where, "write it in keras.ops: it is compiled"):
            augmented = self.function(images, numbers)
        shape = getattr(augmented, "shape", None)
        if shape is None or tuple(shape) != tuple(images.shape):
            got = f"shape {tuple(shape)}" if shape is not None else _kind(augmented)
            raise KitError(f"{where} was given images of shape {tuple(images.shape)} and returned "
                           f"{got}", "return images of the shape that came in")
        return ops.cast(augmented, "float32")


# -- what the kit makes of it ----------------------------------------------------------------------


@dataclass(frozen=True)
class OwnRecipe(Recipe):
    """The recipe of a function of the user's own, `file`:`function`."""

    file: str = ""

    def hidden(self, pixels: Any) -> Any:
        """The output of the user's layers. KitError for what are no layers, or do not fit."""
        spec = model_spec(self.name, [self.file])
        with own_code.blame(self.file, spec):
            layers: Any = self.layers()
        if type(layers).__name__ == "Sequential":
            layers = layers.layers
        if callable(layers):
            layers = [layers]
        wrong = f"{_kind(layers)}, where a list of Keras layers is needed"
        if isinstance(layers, list | tuple) and layers:
            others = [layer for layer in layers if not callable(layer) or isinstance(layer, type)]
            wrong = f"a list with {_kind(others[0])} in it, which is no layer" if others else ""
        if wrong:
            raise KitError(f"{spec} returned {wrong}", "return layers, such as [keras.layers."
                           'Flatten(), keras.layers.Dense(64, activation="relu")]')
        x = pixels
        for number, layer in enumerate(layers, 1):
            what = getattr(layer, "name", getattr(layer, "__name__", type(layer).__name__))
            where = f"{spec}, layer {number} of {len(layers)} ({what}), which gets {_shape(x)}"
            with own_code.blame(self.file, where, "change it, or the layers before it"):
                x = layer(x)
            if not hasattr(x, "shape"):
                raise KitError(f"{where}, returned {_kind(x)}", "return one tensor")
            if 0 in x.shape:  # which not every Keras refuses by itself
                raise KitError(f"{where}, leaves nothing of it: {_shape(x)}",
                               "change it, or the layers before it")
        if len(x.shape) != 2 or x.shape[1] is None:
            raise KitError(f"{spec} ends in {_shape(x)} for each image, where a vector is needed",
                           "let it end with keras.layers.Flatten() or GlobalAveragePooling2D()")
        if getattr(getattr(layers[-1], "activation", None), "__name__", "") == "softmax":
            raise KitError(f"{spec} ends with a softmax of its own, and the kit adds the layer of "
                           "the classes and the softmax itself", "leave the last layer out")
        return x

    def build(self, competition: Competition) -> Any:
        """As `Recipe.build`. KitError also for a model that could not be saved."""
        spec = model_spec(self.name, [self.file])
        with own_code.blame(self.file, spec, "give each layer a name of its own"):
            model = super().build(competition)
        with own_code.blame(self.file, f"{spec} cannot be saved",
                            "write get_config for the layers of your own, with every argument of "
                            "their __init__"):
            model.to_json()
        return model


def parse_models(text: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """The names in a list such as `cnn,my_model.py:build`, and the text of each file by its path.

    The name of a model of one's own is that of a folder: my_model-build. KitError for a model that
    there is not; a file is run to see what it has.
    """
    names, code = [], dict[str, str]()
    for spec in (part.strip() for part in text.split(",")):
        if not own_code.is_own(spec):
            names.append(models.get(spec).name)
            continue
        file, function, content = own_code.open_code(spec, "--model")
        name = f"{Path(file).stem}-{function}"
        _own_recipe(name, file, content)
        names.append(name)
        add_code(code, {file: content})
    return tuple(names), code


def parse_augment(spec: str) -> tuple[str, dict[str, str]]:
    """`spec` with the path of its file as a run records it, and the text of the file by that path.

    KitError where there is no such augmentation.
    """
    if not own_code.is_own(spec):
        raise KitError(f"--augment {spec} does not name a file",
                       f"write it as FILE.py:{spec if spec.isidentifier() else 'NAME'}; what the "
                       "kit's models do is a part of their recipes (see kit models)")
    file, name, text = own_code.open_code(spec, "--augment")
    _augment(f"{file}:{name}", file, text)
    return f"{file}:{name}", {file: text}


def add_code(code: dict[str, str], more: dict[str, str]) -> None:
    """Add files to a run's code. KitError for two of one name, which could not lie side by side."""
    for file, text in more.items():
        for other in code:
            if Path(other).name.lower() == Path(file).name.lower() and other != file:
                raise KitError(f"{other} and {file} have the same name", "rename one of the two")
        code[file] = text


def inspect_models(text: str, competition: Competition) -> list[dict[str, Any]]:
    """What `kit models --model` shows of a list such as `cnn,my_model.py:build`.

    Each model makes one training step. KitError for one that cannot.
    """
    from kit.training.trainer import try_step

    names, code = parse_models(text)
    rows = []
    for name in names:
        found = recipe_of(RunConfig(models=names, code=code), name)
        model = try_step(found, competition)
        found = replace(found, parameters=model.count_params(), mflops=models.flops(model) / 1e6)
        settings = {each: getattr(found, each) for each in DEFAULTS
                    if each not in ("augment", "about")}
        rows.append({**models.row(found), **settings, "augment": described(found.augment)})
    return rows


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The same for a terminal."""
    return [*models.lines(rows), "", *(
        f"{row['model']}: batches of {row['batch_size']}, {row['optimizer']} at "
        f"{row['learning_rate']:g} ({row['schedule']}), {row['augment']}, {row['tta']} test-time "
        f"view{'s' if row['tta'] > 1 else ''}" for row in rows)]


def described(augment: Augment | None) -> str:
    """An augmentation in words."""
    if augment is None:
        return "no augmentation"
    if isinstance(augment, OwnAugment):
        return f"augmented by {getattr(augment.function, '__name__', augment.name)}"
    return ", ".join(f"{each.name} {getattr(augment, each.name):g}" for each in fields(Augment))


def recipe_of(config: RunConfig, model: str) -> Recipe:
    """The recipe of a model of the run: the kit's, or the user's own, with the run's augmentation.

    The same object for the same code, so that a process builds and compiles it once. KitError where
    there is none, or its file fails.
    """
    if "-" in model:
        file, text = _file_of(config, model_spec(model))
        found: Recipe = _own_recipe(model, file, text)
    else:
        found = models.get(model)
    if config.augment is not None and model in config.models:
        file, text = _file_of(config, config.augment)
        found = replace(found, augment=_augment(config.augment, file, text))
    return found


def check_known(config: RunConfig) -> None:
    """KitError where the config names a model of which there is no recipe. Runs no file."""
    for model in config.models:
        if "-" in model:
            _file_of(config, model_spec(model))
        else:
            models.get(model)
    if config.augment is not None:
        _file_of(config, config.augment)


def _file_of(config: RunConfig, spec: str) -> tuple[str, str]:
    """The file of a FILE.py:NAME as the run's code names it, and its text. KitError without it."""
    return own_code.text_of(config.code, spec.rpartition(":")[0])


@functools.lru_cache(maxsize=64)
def _own_recipe(name: str, file: str, text: str) -> OwnRecipe:
    spec = model_spec(name, [file])
    function = spec.rpartition(":")[2]
    found = own_code.find(file, text, function)
    if not callable(found) or isinstance(found, type):
        raise KitError(f"{spec} is {_kind(found)}, not a function",
                       f"write def {function}(): return [...], so that each fold gets new layers")
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise KitError(f"{spec} cannot be called without arguments: {error}",
                       "give each of its arguments a default") from error
    settings = {**DEFAULTS, **getattr(found, "recipe", {})}
    words = inspect.getdoc(found) if inspect.isfunction(found) else None
    settings["about"] = settings["about"] or (words or "a model of your own").splitlines()[0]
    settings["augment"] = as_augment(settings["augment"], file, f"{function}'s augment")
    return OwnRecipe(name=name, layers=found, file=file, cost=COST, **settings)


@functools.lru_cache(maxsize=64)
def _augment(spec: str, file: str, text: str) -> Augment | None:
    name = spec.rpartition(":")[2]
    value = own_code.find(file, text, name)
    if value is None:
        raise KitError(f"{file}:{name} is None", "make it a kit.Augment, or a function")
    return as_augment(value, file, name)


def _kind(value: Any) -> str:
    """What a value is, in words: `None`, `a list`, `the class Dense`."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, list | tuple) and not value:
        return f"an empty {type(value).__name__}"
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"


def _shape(x: Any) -> str:
    """The shape of a batch without its first axis: `14 × 14 × 32`."""
    return " × ".join(str(size) for size in x.shape[1:])
