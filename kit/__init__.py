"""A Kaggle submission kit for Kannada-MNIST. `kit --help` lists what it does; see README.md.

In a notebook the commands are functions: `kit.download()`, `kit.cv(model="cnn")`; see
`kit.commands.actions`. They are loaded when they are first used, since `import kit` must cost
nothing where a kernel is short of time. A model of one's own is written with `kit.recipe` and
`kit.Augment`: see docs/own-model.md.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kit.commands.actions import (
        blend,
        compare,
        cv,
        doctor,
        download,
        models,
        predict,
        remove_runs,
        report,
        runs,
        score,
        show,
        submit,
        validate,
    )
    from kit.training.augment import Augment
    from kit.training.own_models import recipe

    __version__: str

__all__ = ["Augment", "blend", "compare", "cv", "doctor", "download", "models", "predict", "recipe",
           "remove_runs", "report", "runs", "score", "show", "submit", "validate"]
_MODULES = {"Augment": "kit.training.augment", "recipe": "kit.training.own_models"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from kit.core import installation

        return installation.kit_version()
    if name not in __all__:
        raise AttributeError(f"module 'kit' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES.get(name, "kit.commands.actions")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
