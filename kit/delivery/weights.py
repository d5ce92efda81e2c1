"""A run's trained models on their way to Kaggle: a dataset folder here, a run folder again there.

In goes a run folder; out comes `weights/`: one `.keras` file per fold, the run's `config.json`, `manifest.json` with
their hashes, and `dataset-metadata.json` for the official client. The folder is flat, since the client skips folders
when it uploads. A `.keras` file is a zip, and Kaggle unpacks zips: the manifest therefore has the hash of each member
too, and `unpack` takes a folder where it expects a file.
"""

import hashlib
import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

from kit.errors import KitError
from kit.runfolder import RunFolder, fold_keys
from kit.storage import damaged, read_bytes, read_json
from kit.training.records import read_config, rounds

FOLDER = "weights"
MANIFEST = "manifest.json"
METADATA = "dataset-metadata.json"
TRAINED = "trained.json"  # done.json as the training wrote it; on Kaggle a fold is done once it has predicted
SUFFIX = "-weights"
LONGEST_SLUG = 50 - len(SUFFIX)  # Kaggle takes 6 to 50 characters for a dataset


def dataset_slug(kernel_slug: str) -> str:
    """The dataset that holds the weights of this kernel."""
    return kernel_slug + SUFFIX


def title_of(slug: str) -> str:
    """A title that Kaggle turns into `slug` again."""
    return " ".join(word.capitalize() for word in slug.split("-"))


def pack(run: Path, out: Path, ref: str) -> str:
    """Write the dataset folder `out` of `ref` (user/slug); return its manifest's hash. KitError if no fold is done."""
    config = read_config(run)
    folds = [key for key in fold_keys(run) if key.split("/")[0] in config.models]
    if not folds:
        raise KitError(f"{run} has no trained fold of {', '.join(config.models)}",
                       "train it first (kit cv --run NAME), or name another run with --run")
    out.mkdir(parents=True)
    files = {}
    for key in folds:
        name = f"{key.replace('/', '-')}.keras"
        voter = rounds(run / key, config.self_train)[-1]
        data = read_bytes(voter / "model.keras")
        (out / name).write_bytes(data)
        files[name] = {"fold": key, "sha256": hashlib.sha256(data).hexdigest(),
                       "members": _members(data, voter / "model.keras"), "trained": read_json(voter / "done.json")}
    data = read_bytes(RunFolder(run).config)
    (out / "config.json").write_bytes(data)
    manifest = {"run": Path(run).name, "config_sha256": hashlib.sha256(data).hexdigest(), "files": files}
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    (out / MANIFEST).write_text(text, "utf-8")
    metadata = {"title": title_of(ref.split("/")[1]), "id": ref, "licenses": [{"name": "other"}]}
    (out / METADATA).write_text(json.dumps(metadata, indent=2) + "\n", "utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def unpack(source: Path, run: Path, manifest_sha256: str) -> dict[str, Any]:
    """Lay the dataset at `source` out as the run folder `run`, each file checked; return the manifest."""
    text = (source / MANIFEST).read_bytes()
    if hashlib.sha256(text).hexdigest() != manifest_sha256:
        raise KitError(f"{source / MANIFEST} is not the one that this kernel was built with",
                       "push the kernel again: kit kernel push uploads its weights first")
    manifest: dict[str, Any] = json.loads(text)
    _check(source / "config.json", (source / "config.json").read_bytes(), manifest["config_sha256"])
    run.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "config.json", run / "config.json")
    for name, facts in manifest["files"].items():
        target = run / facts["fold"] / "model.keras"
        target.parent.mkdir(parents=True, exist_ok=True)
        (target.parent / TRAINED).write_text(json.dumps(facts["trained"]), "utf-8")
        if (source / name).is_dir():
            _zip_again(source / name, target, facts["members"])
        else:
            _check(source / name, (source / name).read_bytes(), facts["sha256"])
            shutil.copyfile(source / name, target)
    return manifest


def _members(data: bytes, path: Path) -> dict[str, str]:
    """The hash of each member of the `.keras` file at `path`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in sorted(archive.namelist())}
    except Exception as error:  # zipfile and zlib raise half a dozen kinds on damaged bytes
        raise damaged(path, f"no Keras model ({type(error).__name__})") from error


def _zip_again(folder: Path, target: Path, members: dict[str, str]) -> None:
    with zipfile.ZipFile(target, "w") as archive:
        for name, digest in members.items():
            data = (folder / name).read_bytes()
            _check(folder / name, data, digest)
            archive.writestr(name, data)


def _check(path: Path, data: bytes, digest: str) -> None:
    if hashlib.sha256(data).hexdigest() != digest:
        raise KitError(f"{path} is damaged: its SHA-256 is not the manifest's",
                       "upload the weights again: kit kernel push")
