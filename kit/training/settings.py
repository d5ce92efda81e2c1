"""Settings: what to train, and for how long, by the time at hand.

What a run's options leave open comes from its `Setting`. A setting that promises a time keeps it by
training fewer epochs (kit.training.planning).
"""

from dataclasses import dataclass, field
from typing import Any

from kit.core import backend
from kit.core.errors import KitError


@dataclass(frozen=True)
class Setting:
    """What a run trains where its options do not say."""

    name: str
    about: str
    models: tuple[str, ...]
    n_seeds: int = 1
    epochs: int | None = None  # None: each recipe's own
    batch_size: int | None = None  # likewise
    self_train: int = 0  # rounds of self-training
    train_extra: bool = False  # where the competition has an out-of-domain file
    # That the whole command takes at most, on the competition's data; None: no promise
    minutes: float | None = None
    # Of each model; with fewer, another setting is the better one
    least_epochs: dict[str, int] = field(default_factory=dict, hash=False)

    def options(self) -> dict[str, Any]:
        """What it says, as RunConfig's options."""
        return {"models": self.models, "n_seeds": self.n_seeds, "epochs": self.epochs,
                "batch_size": self.batch_size, "self_train": self.self_train,
                "train_extra": self.train_extra}


SETTINGS = {setting.name: setting for setting in (
    # With 3,840 rows a fold, small batches make enough steps of few epochs.
    Setting("sample", "a look at the whole way within 4 minutes", ("cnn_aug",), epochs=6,
            batch_size=64, minutes=3.6, least_epochs={"cnn_aug": 3}),
    # 4 minutes where bfloat16 is multiplied in tiles (AMX), and 12 suffice for 3 epochs of float32
    Setting("quick", "a fair score within 12 minutes", ("light",), epochs=6, train_extra=True,
            minutes=12, least_epochs={"light": 2}),
    Setting("cpu-45min", "the best within 45 minutes", ("strong",), self_train=2,
            train_extra=True, minutes=45, least_epochs={"strong": 5}),
    Setting("cpu-night", "the best within a night: Kaggle ends a session after 9 hours",
            ("deep", "strong"), n_seeds=2, self_train=2, train_extra=True, minutes=520,
            least_epochs={"deep": 8, "strong": 8}),
    Setting("t4x2-2h", "for 2 hours on Kaggle's two T4s, not measured yet", ("deep", "strong"),
            n_seeds=4, self_train=2, train_extra=True),
)}


def get(name: str) -> Setting:
    """The setting of that name. KitError for an unknown one."""
    try:
        return SETTINGS[name]
    except KeyError:
        raise KitError(f"there is no setting {name!r}",
                       f"choose from: {', '.join(SETTINGS)} (see kit models)") from None


def suitable(is_sample: bool, limited: bool) -> tuple[tuple[Setting, ...], str]:
    """The settings that suit data and machine, the best first, and why.

    Where there are several, the pace decides (`kit.training.planning.choose_setting`).
    """
    if is_sample:
        return (get("sample"),), "since the data is the drawn sample"
    if limited:
        return (get("quick"),), "since --limit asks for a quick look"
    if backend.gpus() or backend.has_tpu():
        return (get("t4x2-2h"),), f"since there is a {'GPU' if backend.gpus() else 'TPU'}"
    return (get("cpu-45min"), get("quick")), "by the pace of this machine"


def table() -> list[dict[str, Any]]:
    """What `kit models` shows of the settings."""
    return [{"setting": setting.name, "about": setting.about, **setting.options(),
             "minutes": setting.minutes, "least_epochs": setting.least_epochs}
            for setting in SETTINGS.values()]


def lines() -> list[str]:
    """The same for a terminal."""
    said = [f"{'setting':<10}{'seeds':>12}{'epochs':>8}{'at least':>10}{'minutes':>9}"
            "  trains, and is"]
    for setting in SETTINGS.values():
        least = ",".join(map(str, setting.least_epochs.values())) or "-"
        said.append(f"{setting.name:<10}{setting.n_seeds:>12}{setting.epochs or 'own':>8}"
                    f"{least:>10}{setting.minutes or '-':>9}  {','.join(setting.models)}: "
                    f"{setting.about}")
    return said
