"""Settings: what to train, and for how long, by the time at hand.

In goes a name, or what is known of data and machine; out comes a `Setting`, which a run's options are filled up from.
Whatever the user names goes before it.
"""

from dataclasses import dataclass
from typing import Any

from kit.errors import KitError
from kit.training import backend


@dataclass(frozen=True)
class Setting:
    """What a run trains where its options do not say."""

    name: str
    about: str
    models: tuple[str, ...]
    n_seeds: int = 1
    epochs: int | None = None  # None: each recipe's own

    def options(self) -> dict[str, Any]:
        """What it says, as RunConfig's options."""
        return {"models": self.models, "n_seeds": self.n_seeds, "epochs": self.epochs}


SETTINGS = {setting.name: setting for setting in (
    Setting("quick", "a fair score within minutes", ("cnn_aug",)),
    Setting("cpu-45min", "the best within 45 minutes on two CPU cores", ("strong",)),
    Setting("t4x2-2h", "for 2 hours on Kaggle's two T4s, not measured yet", ("strong",), n_seeds=4, epochs=60),
)}


def get(name: str) -> Setting:
    """The setting of that name. KitError for an unknown one."""
    try:
        return SETTINGS[name]
    except KeyError:
        known = ", ".join(SETTINGS)
        raise KitError(f"there is no setting {name!r}", f"choose from: {known} (see kit models)") from None


def suitable(is_sample: bool, limited: bool) -> tuple[Setting, str]:
    """The setting that fits data and machine, and why."""
    if is_sample:
        return get("quick"), "since the data is the drawn sample"
    if limited:
        return get("quick"), "since --limit asks for a quick look"
    if backend.gpus():
        return get("t4x2-2h"), "since there is a GPU"
    if backend.has_tpu():
        return get("t4x2-2h"), "since there is a TPU"
    precision, why = backend.resolve_precision("auto")
    if precision == "float32":
        return get("quick"), f"since anything larger would take hours here: {why}"
    return get("cpu-45min"), "since this CPU computes bfloat16 fast"


def table() -> list[dict[str, Any]]:
    """What `kit models` shows of the settings."""
    return [{"setting": setting.name, "about": setting.about, **setting.options()} for setting in SETTINGS.values()]


def lines() -> list[str]:
    """The same for a terminal."""
    head = f"{'setting':<10}{'seeds':>12}{'epochs':>8}  trains, and is"
    body = [f"{setting.name:<10}{setting.n_seeds:>12}{setting.epochs or 'own':>8}  {','.join(setting.models)}: "
            f"{setting.about}" for setting in SETTINGS.values()]
    return [head, *body]
