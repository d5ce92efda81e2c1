"""Find what Kaggle has mounted for a kernel: the competition's data and the weights.

Kaggle has changed the layout of its mounts without notice, and may again. So the known places are
looked at first, then every folder of the right name, but never one of another name: labels for
another competition's test file would be a submission that looks fine and scores nothing.
"""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from kit.core.errors import KitError
from kit.data.competition import Competition
from kit.kernel import weights

SHOWN = 12  # mounted folders that an error names
DEPTH = 4  # below /kaggle/input: datasets/<owner>/<slug>, and a folder in it


def kaggle_root() -> Path:
    """`/kaggle` with `input` and `working`; a rehearsal without namespaces has it elsewhere."""
    return Path(os.environ.get("KIT_KAGGLE_ROOT", "/kaggle"))


def find_data(inputs: Path, competition: Competition) -> Path:
    """The folder in which the competition's files are mounted.

    That is `competitions/<slug>/`, `<slug>/`, or a folder of that name further down, in any case of
    letters: Kaggle spells this competition's slug Kannada-MNIST. Datasets are left out, as Kaggle
    exchanges the test file in the competition's own folder only. KitError if there is none.
    """
    if not inputs.is_dir():
        raise KitError(f"there is no folder {inputs}, which is where Kaggle mounts data",
                       "run this on Kaggle, or here by kit kernel rehearse")
    named = [folder for folder in _folders(inputs) if folder.name.lower() == competition.slug
             and folder.relative_to(inputs).parts[0] != "datasets"]
    named.sort(key=lambda folder: _rank(folder.parent, (inputs / "competitions", inputs)))
    for folder in named:
        if (folder / competition.test).is_file():
            return folder
    if named:
        there = ", ".join(sorted(path.name for path in named[0].iterdir())[:SHOWN]) or "nothing"
        raise KitError(f"{named[0]} has no {competition.test}; in it there is {there}",
                       "remove the competition from the notebook's inputs and add it again")
    raise KitError(f"{inputs} has no folder {competition.slug} with the competition's files; "
                   f"mounted there is {shortened(mounted_folders(inputs))}",
                   "add the competition as an input of this notebook, and accept its rules on its "
                   "page")


def find_weights(inputs: Path, ref: str, manifest_sha256: str) -> Path:
    """The folder in which the dataset `ref` (owner/slug) is mounted.

    It is recognized by the manifest that this kernel was built with, first in
    `datasets/<owner>/<slug>/`, `<owner>/<slug>/` and `<slug>/`, then anywhere. KitError if there is
    none, or only one of another version.
    """
    owner, slug = ref.lower().split("/")
    known = [inputs / "datasets" / owner / slug, inputs / owner / slug, inputs / slug]
    found = [folder for folder in _folders(inputs) if (folder / weights.MANIFEST).is_file()]
    found.sort(key=lambda folder: _rank(_lower(folder, inputs), known))
    for folder in found:
        if hashlib.sha256((folder / weights.MANIFEST).read_bytes()).hexdigest() == manifest_sha256:
            return folder
    for folder in found:
        if _lower(folder, inputs) in known:
            raise KitError(f"{folder / weights.MANIFEST} is not the one that this kernel was built "
                           "with", "push the kernel again: kit kernel push uploads its weights "
                           "first")
    raise KitError(f"{inputs} has no dataset {ref}; mounted there is "
                   f"{shortened(mounted_folders(inputs))}",
                   "attach it: kit kernel push uploads it and names it as a source")


def mounted_folders(inputs: Path) -> list[str]:
    """The folders below `inputs` that hold files, as paths relative to it."""
    return [str(folder.relative_to(inputs)) for folder in _folders(inputs)
            if any(entry.is_file() for entry in _entries(folder))]


def shortened(names: Sequence[str]) -> str:
    """The first SHOWN of `names`, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "nothing"


def _rank(place: Path, known: Sequence[Path]) -> int:
    """The position of `place` among the `known` ones; after all of them if it is none."""
    return known.index(place) if place in known else len(known)


def _lower(folder: Path, inputs: Path) -> Path:
    return inputs / str(folder.relative_to(inputs)).lower()


def _folders(inputs: Path) -> list[Path]:
    """All folders below `inputs`, sorted, down to DEPTH; deeper there may be millions of images."""
    found, level = [], [inputs]
    for _ in range(DEPTH):
        level = [Path(entry) for folder in level for entry in _entries(folder) if entry.is_dir()]
        found += level
    return found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # it may not be readable
        return sorted(entries, key=lambda entry: entry.name)
    return []
