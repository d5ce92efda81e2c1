"""Where Kaggle mounts what a kernel reads: its layout of today, and the one before.

In goes `/kaggle/input`; out come the folders of the competition's data and of the weights, and a test file's ids.
"""

import csv
from pathlib import Path

import numpy as np

from kit.data.competition import Competition
from kit.delivery import weights
from kit.errors import KitError


def find_data(inputs: Path, competition: Competition) -> Path:
    """Where the competition's files are mounted: today `competitions/<slug>/`, before that `<slug>/`, in any case.

    Kaggle spells this competition's slug Kannada-MNIST. KitError if nothing there holds the test file.
    """
    parents = [parent for parent in (inputs / "competitions", inputs) if parent.is_dir()]
    places = [place for parent in parents for place in sorted(parent.iterdir())
              if place.name.lower() == competition.slug]
    places += sorted({path.parent for path in inputs.glob(f"**/{competition.test}")})
    for place in places:
        if (place / competition.test).is_file():
            return place
    raise KitError(f"{inputs} has no {competition.test} of {competition.slug}",
                   "add the competition as an input of this notebook, and accept its rules on its page")


def find_weights(inputs: Path, ref: str) -> Path:
    """Where the dataset `owner/slug` is mounted: today `datasets/<owner>/<slug>/`, before that `<slug>/`."""
    slug = ref.split("/")[1]
    for manifest in (inputs / "datasets" / ref / weights.MANIFEST, inputs / slug / weights.MANIFEST,
                     *sorted(inputs.glob(f"**/{weights.MANIFEST}"))):
        if manifest.is_file():
            return manifest.parent
    raise KitError(f"{inputs} has no dataset {ref}", "attach it: kit kernel push uploads it and names it as a source")


def lenient_ids(path: Path, competition: Competition) -> np.ndarray:
    """The ids of a test file that the strict reader refuses, as text: its first column, or its rows counted."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        first = [row[0] for row in csv.reader(file) if row][1:]
    return np.array(first) if competition.id_column else competition.first_id + np.arange(len(first))
