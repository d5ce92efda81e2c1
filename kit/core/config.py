"""The settings of a run, RunConfig: a frozen dataclass, saved in the run's `config.json`.

Resuming, predicting and reporting read it back, and need no options of their own.
"""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from kit.core.errors import KitError

SPLITS = ("auto", "stratified", "writer", "harder")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
EXECUTORS = ("auto", "local", "processes", "ray")
CLASS_PRIORS = ("auto", "none", "equal")
MAX_VIEWS = 7  # the length of kit.training.augment.VIEWS
# (least, most). A run with larger values would never end, not fit into memory, or overflow (int8
# folds, 32-bit seeds).
BOUNDS: dict[str, tuple[int, int]] = {
    "n_folds": (2, 127), "n_seeds": (1, 100), "epochs": (1, 10_000), "batch_size": (1, 1 << 20),
    "tta": (1, MAX_VIEWS), "threads": (1, 1024), "limit": (1, 10**9), "seed": (0, 2**32 - 101),
    "time_budget": (0, 10**8), "self_train": (0, 9)}
# Names on the command line that differ from the field
OPTIONS = {"models": "model", "n_folds": "folds", "n_seeds": "seeds"}
EXAMPLES = {"epochs": 12, "batch_size": 128, "tta": 5, "threads": 2, "time_budget": 6600.0,
            "limit": 200, "self_train": 2, "code": {}}
KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "text",
         tuple: "a tuple of names", dict: "a table of texts"}
# A resumed run may change these, as they do not change how a fold is trained.
FREE_TO_CHANGE = ("executor", "time_budget", "tensorboard", "class_prior", "self_train")


@dataclass(frozen=True)
class RunConfig:
    """The settings of one run. None means the value of the model's recipe."""

    competition: str = "kannada-mnist"
    models: tuple[str, ...] = ("cnn",)
    n_folds: int = 5
    split: str = "auto"
    n_seeds: int = 1
    seed: int = 0
    epochs: int | None = None
    batch_size: int | None = None
    precision: str = "auto"
    tta: int | None = None  # test-time views per image
    executor: str = "auto"
    threads: int | None = None  # CPU threads per fold; None: the executor decides
    time_budget: float | None = None  # seconds for the training of all folds
    limit: int | None = None  # rows of each class, spread over the writers
    class_prior: str = "auto"  # how often each class is in the test file (kit.ensembling.prior)
    # Rounds of self-training: learning also from test rows, with predicted labels
    self_train: int = 0
    train_extra: bool = False  # learn from the out-of-domain file, too, which is then no test
    tensorboard: bool = False  # write TensorBoard logs into the run folder
    augment: str | None = None  # FILE.py:NAME, instead of the recipes'
    # The files of the user's own that models and augment are from: their text, by their paths.
    code: dict[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        kinds = get_type_hints(type(self))
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if not matches_type(value, kinds[each.name]):
                kind = unwrap_optional(kinds[each.name])
                example = EXAMPLES.get(each.name, each.default)
                raise KitError(f"{option_name(each.name)} {value!r:.60} is not {KINDS[kind]}",
                               f"write {each.name}={suggest_value(value, kind, example)!r}")
            least, most = BOUNDS.get(each.name, (None, None))
            if each.name == "limit":
                least = self.n_folds  # each fold holds out a row of every class
            if value is not None and least is not None and not least <= value <= most:
                too = "small" if value < least else "large"
                raise KitError(f"{option_name(each.name)} {value!r:.60} is too {too}",
                               f"give one from {least} to {most}, such as "
                               f"{option_name(each.name)} "
                               f"{EXAMPLES.get(each.name, each.default):g}")
        for name, choices in (("split", SPLITS), ("precision", PRECISIONS), ("executor", EXECUTORS),
                              ("class_prior", CLASS_PRIORS)):
            if getattr(self, name) not in choices:
                raise KitError(f"{option_name(name)} {getattr(self, name)!r} is unknown",
                               f"choose one of: {', '.join(choices)}")
        if not self.models:
            raise KitError("--model names no model",
                           "name one, such as --model cnn (see kit models)")
        if len(set(self.models)) != len(self.models):
            named = [model_spec(model, self.code) for model in self.models]
            raise KitError(f"--model {','.join(named)} names a model twice",
                           f"name it once: --model {','.join(dict.fromkeys(named))}")

    @property
    def members(self) -> list[tuple[str, int]]:
        """(model, seed) of each member of the ensemble."""
        return [(model, seed) for model in self.models
                for seed in range(self.seed, self.seed + self.n_seeds)]

    @property
    def n_jobs(self) -> int:
        """The number of folds to train, not counting the baseline's, which train fast."""
        return self.n_folds * len(self.members)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def options(self) -> list[str]:
        """The command-line options that make this config.

        --model is always among them, as its default depends on the command.
        """
        words: list[str] = []
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) and value is not each.default:
                words.append(option_name(each.name) if value else option_name(f"no_{each.name}"))
            elif each.name == "models":
                words += ["--model", ",".join(model_spec(model, self.code) for model in value)]
            elif value != each.default and each.name != "code":  # which the others name
                words += [option_name(each.name), str(value)]
        return words

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunConfig":
        """The config that `to_dict` of this or an older version returned as `values`.

        KitError for an unknown key or an invalid value.
        """
        known = {each.name for each in dataclasses.fields(cls)}
        if not isinstance(values, dict):
            raise KitError("the run's config is not a table of options",
                           "start a new run with --run")
        if "balanced" in values and "class_prior" not in values:  # runs from before 2026-11-25
            values = dict(values)
            asked = values.pop("balanced")
            values["class_prior"] = {None: "auto", True: "equal", False: "none"}[asked] \
                if asked is None or isinstance(asked, bool) else asked
        unknown = sorted(set(values) - known)
        if unknown:
            raise KitError(f"the run's config has unknown keys: {', '.join(unknown)}",
                           "use the version of the kit that made this run, or start a new run with "
                           "--run")
        models = values.get("models", cls.models)
        try:
            return cls(**{**values,
                          "models": tuple(models) if isinstance(models, list) else models})
        except KitError as error:
            raise KitError(f"the run's config has a value that no run can have: {error.message}",
                           "put the original config.json back, or start a new run with "
                           "--run") from error


def matches_type(value: Any, kind: Any) -> bool:
    """Whether `value`, from a JSON file, is of the type `kind` of a dataclass field.

    An int is a float, too; a bool is no int.
    """
    if isinstance(kind, UnionType):
        return any(matches_type(value, part) for part in get_args(kind))
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(
            isinstance(item, str) for pair in value.items() for item in pair)
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    # NaN is not equal to itself
    return type(value) in ((int, float) if kind is float else (kind,)) and value == value


def unwrap_optional(kind: Any) -> Any:
    """The plain type of an annotation: int for `int | None`, tuple for `tuple[str, ...]`."""
    if isinstance(kind, UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    return get_origin(kind) or kind


def suggest_value(value: Any, kind: type, example: Any) -> Any:
    """What the user may have meant by `value`, as a `kind`: 3 by "3"; else the `example`."""
    if kind is tuple and isinstance(value, str):
        return tuple(value.split(","))
    try:
        number = float(value) if kind in (int, float) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        return example
    return round(number) if kind is int else number


def model_spec(model: str, files: Iterable[str] = ()) -> str:
    """What --model takes for the model of that name: one of one's own is FILE.py:FUNCTION.

    Its name is that of a folder, FILE-FUNCTION. files: the paths that it may have.
    """
    stem, dash, function = model.rpartition("-")
    if not dash:
        return model
    file = next((path for path in files if Path(path).stem == stem), f"{stem}.py")
    return f"{file}:{function}"


def option_name(name: str) -> str:
    """The command-line option for the field `name`."""
    return f"--{OPTIONS.get(name, name.replace('_', '-'))}"


def differences(stored: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """How two configs differ, as `name: stored → current`, in what no resumed run may change."""
    names = sorted((set(stored) | set(current)) - {"code", *FREE_TO_CHANGE})
    before, now = ({Path(path).name: text for path, text in config.get("code", {}).items()}
                   for config in (stored, current))
    return [f"{name}: {stored.get(name)!r} → {current.get(name)!r}" for name in names
            if _comparable(stored.get(name)) != _comparable(current.get(name))] \
        + [f"{file} has changed" for file in before if before[file] != now.get(file, before[file])]


def _comparable(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
