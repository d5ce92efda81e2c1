"""Pack a run's trained models as a Kaggle dataset, and unpack it as a run folder on Kaggle.

The dataset folder `weights/` has one file per fold (a run's `.keras`, or the `.npz` that its
submission keeps), the run's `config.json`, `manifest.json` with their hashes, and
`dataset-metadata.json` for the official client. It has no subfolders, since the client would not
upload them. Both kinds of files are zips, and Kaggle unpacks zips: so the manifest also has the
hash of each member, and `unpack` accepts a folder in place of a file.
"""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

from kit.core.errors import KitError
from kit.core.os_errors import disk_errors
from kit.core.run_folder import RunFolder
from kit.core.storage import read_bytes
from kit.training.records import read_config, trained_folds

FOLDER = "weights"
MANIFEST = "manifest.json"
METADATA = "dataset-metadata.json"
TRAINED = "trained.json"  # the training's done.json; on Kaggle, that says a fold has predicted
SUFFIX = "-weights"
LONGEST_SLUG = 50 - len(SUFFIX)  # of a kernel; Kaggle takes 6 to 50 characters for a dataset


def dataset_slug(kernel_slug: str) -> str:
    """The slug of the dataset with the weights of the kernel `kernel_slug`."""
    return kernel_slug + SUFFIX


def title_from_slug(slug: str) -> str:
    """A title that Kaggle turns into `slug` again."""
    return " ".join(word.capitalize() for word in slug.split("-"))


def pack(run: Path, out: Path, ref: str) -> str:
    """Write the dataset folder `out` for `ref` (user/slug), of a run or its submission's weights.

    Returns the manifest's hash. KitError if no fold is done.
    """
    config = read_config(run)
    if not (folds := trained_folds(RunFolder(run), config)):
        raise KitError(f"{run} has no trained fold of {', '.join(config.models)}",
                       "train it first (kit cv --run NAME), or name another run with --run")
    out.mkdir(parents=True)
    files = {}
    for fold in folds:
        name = fold.key.replace("/", "-") + fold.weights.suffix
        data = read_bytes(fold.weights)
        (out / name).write_bytes(data)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {member: hashlib.sha256(archive.read(member)).hexdigest()
                       for member in sorted(archive.namelist())}
        files[name] = {"fold": fold.key, "sha256": hashlib.sha256(data).hexdigest(),
                       "members": members, "trained": fold.done}
    data = read_bytes(RunFolder(run).config)
    (out / "config.json").write_bytes(data)
    manifest = {"run": Path(run).name, "config_sha256": hashlib.sha256(data).hexdigest(),
                "files": files}
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    (out / MANIFEST).write_text(text, "utf-8")
    metadata = {"title": title_from_slug(ref.split("/")[1]), "id": ref,
                "licenses": [{"name": "other"}]}
    (out / METADATA).write_text(json.dumps(metadata, indent=2) + "\n", "utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def unpack(source: Path, run: Path, manifest_sha256: str) -> dict[str, Any]:
    """Unpack the dataset at `source` as the run folder `run`, checking each file.

    Returns the manifest. KitError if a file is missing, cannot be read, or is not the one that was
    packed.
    """
    manifest: dict[str, Any] = json.loads(_read(source / MANIFEST, manifest_sha256))
    config = _read(source / "config.json", manifest["config_sha256"])
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_bytes(config)
    for name, facts in manifest["files"].items():
        target = run / facts["fold"] / f"model{Path(name).suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        (target.parent / TRAINED).write_text(json.dumps(facts["trained"]), "utf-8")
        if (source / name).is_dir():
            with zipfile.ZipFile(target, "w") as archive:
                for member, digest in facts["members"].items():
                    archive.writestr(member, _read(source / name / member, digest))
        else:
            target.write_bytes(_read(source / name, facts["sha256"]))
    return manifest


def model_file(fold: Path) -> Path:
    """The weights in a fold's folder that `unpack` has made."""
    kept = fold / "model.npz"
    return kept if kept.is_file() else fold / "model.keras"


def _read(path: Path, digest: str) -> bytes:
    """The bytes of the file. KitError unless their SHA-256 is `digest`."""
    again = "push the kernel again: kit kernel push uploads its weights first"
    if not path.is_file():
        raise KitError(f"the dataset of the weights lacks {path.name}: {path.parent} does not have "
                       "it", again)
    with disk_errors(path, "read"):
        data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise KitError(f"{path} is damaged, or of another version than this kernel: its SHA-256 is "
                       "not the one that was packed", again)
    return data
