"""RunConfig: everything that decides what a run computes, in one frozen dataclass, saved beside what it produced.

It is stored as `config.json`, which prediction, resume and the report read back instead of asking again. A key that
this version does not know is an error, not a default.
"""

import dataclasses
import math
from dataclasses import dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from kit.core.errors import KitError

SPLITS = ("auto", "stratified", "writer")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
EXECUTORS = ("auto", "local", "processes", "ray")
CLASS_PRIORS = ("auto", "none", "equal")
MAX_VIEWS = 7  # of kit.training.augment.VIEWS
# Least and most: beyond these a run would not end, not fit into memory, or not be numbered (int8 folds, 32-bit seeds).
BOUNDS: dict[str, tuple[int, int]] = {
    "n_folds": (2, 127), "n_seeds": (1, 100), "epochs": (1, 10_000), "batch_size": (1, 1 << 20), "tta": (1, MAX_VIEWS),
    "threads": (1, 1024), "limit": (1, 10**9), "seed": (0, 2**32 - 101), "time_budget": (0, 10**8),
    "self_train": (0, 9)}
OPTIONS = {"models": "model", "n_folds": "folds", "n_seeds": "seeds"}  # of the command line, where named otherwise
EXAMPLES = {"epochs": 12, "batch_size": 128, "tta": 5, "threads": 2, "time_budget": 6600.0, "limit": 200,
            "self_train": 2}
KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "text", tuple: "a tuple of names"}
# On resume: these do not change what is trained.
FREE_TO_CHANGE = ("executor", "time_budget", "tensorboard", "class_prior", "self_train")


@dataclass(frozen=True)
class RunConfig:
    """One run. `None` means: what the model's own recipe says."""

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
    threads: int | None = None  # CPU threads per fold; None: all that the executor gives it
    time_budget: float | None = None  # seconds for the training of all folds
    limit: int | None = None  # rows of each class, spread over the writers
    class_prior: str = "auto"  # how often each class is in the test file (kit.ensembling.prior)
    self_train: int = 0  # rounds of learning from the test rows, too, labelled as the run itself guesses them
    tensorboard: bool = False  # write logs for it into the run folder

    def __post_init__(self) -> None:
        kinds = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not matches_type(value, kinds[field.name]):
                kind = unwrap_optional(kinds[field.name])
                example = EXAMPLES.get(field.name, field.default)
                raise KitError(f"{option_name(field.name)} {value!r:.60} is not {KINDS[kind]}",
                               f"write {field.name}={suggest_value(value, kind, example)!r}")
            least, most = BOUNDS.get(field.name, (None, None))
            if field.name == "limit":
                least = self.n_folds  # each fold holds out a row of every class
            if value is not None and least is not None and not least <= value <= most:
                too = "small" if value < least else "large"
                raise KitError(f"{option_name(field.name)} {value!r:.60} is too {too}",
                               f"give one from {least} to {most}, such as {option_name(field.name)} "
                               f"{EXAMPLES.get(field.name, field.default):g}")
        for name, choices in (("split", SPLITS), ("precision", PRECISIONS), ("executor", EXECUTORS),
                              ("class_prior", CLASS_PRIORS)):
            if getattr(self, name) not in choices:
                raise KitError(f"{option_name(name)} {getattr(self, name)!r} is unknown",
                               f"choose one of: {', '.join(choices)}")
        if not self.models:
            raise KitError("--model names no model", "name one, such as --model cnn (see kit models)")
        if len(set(self.models)) != len(self.models):
            raise KitError(f"--model {','.join(self.models)} names a model twice",
                           f"name it once: --model {','.join(dict.fromkeys(self.models))}")

    @property
    def members(self) -> list[tuple[str, int]]:
        """Model and seed of each member of the ensemble."""
        return [(model, seed) for model in self.models for seed in range(self.seed, self.seed + self.n_seeds)]

    @property
    def n_jobs(self) -> int:
        """How many folds are trained in all, but for the baseline's, which take a tenth of the time or less."""
        return self.n_folds * len(self.members)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def options(self) -> list[str]:
        """The words of a command line that make this config; always with the models, for which a command has others."""
        words: list[str] = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) and value is not field.default:
                words.append(option_name(field.name) if value else option_name(f"no_{field.name}"))
            elif value != field.default or field.name == "models":
                words += [option_name(field.name), ",".join(value) if isinstance(value, tuple) else str(value)]
        return words

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunConfig":
        """The config that `to_dict` wrote. KitError for a key that this version does not know."""
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, dict):
            raise KitError("the run's config is no table of options", "start a new run with --run")
        if "balanced" in values and "class_prior" not in values:  # runs from before 2026-11-25
            values = dict(values)
            asked = values.pop("balanced")
            values["class_prior"] = {None: "auto", True: "equal", False: "none"}[asked] \
                if asked is None or isinstance(asked, bool) else asked
        unknown = sorted(set(values) - known)
        if unknown:
            raise KitError(f"the run's config has unknown keys: {', '.join(unknown)}",
                           "use the version of the kit that made this run, or start a new run with --run")
        models = values.get("models", cls.models)
        try:
            return cls(**{**values, "models": tuple(models) if isinstance(models, list) else models})
        except KitError as error:
            raise KitError(f"the run's config has a value that no run can have: {error.message}",
                           "put the original config.json back, or start a new run with --run") from error


def matches_type(value: Any, kind: Any) -> bool:
    """Whether a value out of a JSON file is of the kind that a dataclass's field is declared to be."""
    if isinstance(kind, UnionType):
        return any(matches_type(value, part) for part in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    return type(value) in ((int, float) if kind is float else (kind,)) and value == value  # NaN is no number


def unwrap_optional(kind: Any) -> Any:
    """The type of a field or an argument that may also be None."""
    if isinstance(kind, UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    return get_origin(kind) or kind


def suggest_value(value: Any, kind: type, example: Any) -> Any:
    """What the user may have meant by a `value` that is not of its `kind`: 3 by "3"; else the example."""
    if kind is tuple and isinstance(value, str):
        return tuple(value.split(","))
    try:
        number = float(value) if kind in (int, float) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        return example
    return round(number) if kind is int else number


def option_name(name: str) -> str:
    """How a field is called on the command line."""
    return f"--{OPTIONS.get(name, name.replace('_', '-'))}"


def differences(stored: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """What differs between two configs, as `name: stored → current`, save what a resume is free to change."""
    names = sorted(set(stored) | set(current))
    return [f"{name}: {stored.get(name)!r} → {current.get(name)!r}" for name in names
            if name not in FREE_TO_CHANGE and _comparable(stored.get(name)) != _comparable(current.get(name))]


def _comparable(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
