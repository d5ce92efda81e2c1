"""Pack the kit and its settings into a kernel folder that `kaggle kernels push` accepts.

In go the kit's own source and a few settings; out comes a folder with one code file, `kernel-metadata.json` and, in
predict mode, the run's weights as a dataset folder. The one idea: a kernel is a single file, so the whole package
travels inside it as text, with the hash that it must have when it is unpacked. Nothing in the folder depends on when or
where it was built: the same commit gives the same bytes. (Hence no `checksums.json` in it, and no `kit.storage`.)
"""

import contextlib
import io
import json
import re
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import kit
from kit.config import RunConfig
from kit.data.competition import Competition
from kit.delivery import template, weights
from kit.errors import KitError
from kit.training.records import read_config

METADATA = "kernel-metadata.json"
KINDS = {"script": "kernel.py", "notebook": "kernel.ipynb"}
MODES = ("train", "predict")
ACCELERATORS: dict[str, dict[str, Any]] = {
    "t4x2": {"enable_gpu": True, "enable_tpu": False, "machine_shape": "NvidiaTeslaT4"},  # Kaggle gives two of them
    "tpu": {"enable_gpu": False, "enable_tpu": True},
    "none": {"enable_gpu": False, "enable_tpu": False},
}
SETTINGS = {"t4x2": "t4x2-2h", "tpu": "t4x2-2h", "none": "cpu-45min"}  # of kit.training.settings
MINUTES = {"t4x2": 110, "tpu": 110, "none": 520}  # of Kaggle's 120 on a GPU and 540 on a CPU
PLACEHOLDER_USER = "INSERT_USERNAME_HERE"  # built without knowing the account; never to be pushed
PACKED = {".py", ".html", ".css", ".js"}


def build(out: Path, competition: Competition, user: str | None = None, slug: str | None = None,
          kind: str = "script", mode: str = "train", accelerator: str = "t4x2", run: Path | None = None,
          models: tuple[str, ...] | None = None, folds: int = 5, seeds: int | None = None, epochs: int | None = None,
          seed: int = 0, minutes: float | None = None) -> Path:
    """Write the kernel folder `out` and return it; its own files are replaced, others there are left alone.

    `user`: the Kaggle account, else a placeholder that cannot be pushed. `run`: the run folder whose weights a
    `predict` kernel takes along. Without `models`, they, `seeds` and `epochs` are the accelerator's setting.
    `minutes`: everything ends by then, under Kaggle's limit. KitError for an unknown choice, a slug that Kaggle would
    change, or a run without weights; the folder is then as it was.
    """
    for option, value, choices in (("kind", kind, tuple(KINDS)), ("mode", mode, MODES),
                                   ("accelerator", accelerator, tuple(ACCELERATORS))):
        if value not in choices:
            raise KitError(f"--{option} {value!r} is unknown", f"choose one of: {', '.join(choices)}")
    slug = _checked_slug(slug or f"{competition.slug}-kit")
    owner = _checked_user(user or PLACEHOLDER_USER)
    ref, dataset = f"{owner}/{slug}", f"{owner}/{weights.dataset_slug(slug)}"
    minutes = MINUTES[accelerator] if minutes is None else minutes
    if minutes <= 0:
        raise KitError(f"a kernel cannot do anything in {minutes:g} minutes", "give it more, such as 110m")
    settings: dict[str, Any] = {"competition": competition.slug, "mode": mode}
    if mode == "train":
        settings |= _training(competition, accelerator, models=models, n_folds=folds, n_seeds=seeds, epochs=epochs,
                              seed=seed)
    with tempfile.TemporaryDirectory() as scratch:
        if mode == "predict":
            if run is None:
                raise KitError("a predict kernel needs the weights of a run", "name one: --run RUN, from runs/")
            packed = weights.pack(run, Path(scratch) / weights.FOLDER, dataset)
            settings |= {"weights": dataset, "manifest_sha256": packed, "class_prior": read_config(run).class_prior}
        settings["minutes"] = minutes
        if accelerator == "tpu":
            settings["backend"] = "jax"
        code = template.render(kind, settings, pack_source(), _facts(competition, accelerator))
        metadata = _metadata(competition, ref, kind, accelerator, [dataset] if mode == "predict" else [])
        _lay_down(Path(out), {KINDS[kind]: code, METADATA: _json(metadata)}, Path(scratch) / weights.FOLDER)
    return Path(out)


def _training(competition: Competition, accelerator: str, **asked: Any) -> dict[str, Any]:
    """The settings of a kernel that trains. KitError for a model that there is not."""
    from kit.training import models, settings

    own = {} if asked["models"] else settings.get(SETTINGS[accelerator]).options()
    config = RunConfig(competition.slug, **own | {name: value for name, value in asked.items() if value is not None})
    for name in config.models:
        models.get(name)
    return {"models": list(config.models), "folds": config.n_folds, "seeds": config.n_seeds, "epochs": config.epochs,
            "seed": config.seed, "class_prior": config.class_prior}


def _lay_down(out: Path, files: dict[str, bytes], weights_folder: Path) -> None:
    """Put the kernel's files into `out`, and take away what another kind or mode has left there."""
    others, packed = set(KINDS.values()) - set(files), out / weights.FOLDER
    temporary = {name: out / f".{name}.tmp" for name in files}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in (*(out / name for name in (*files, *others)), packed):
            if path.exists() and path.is_dir() != (path == packed):
                raise OSError(f"{path.name} is there, and no {'folder' if path == packed else 'file'}")
        for name, data in files.items():
            temporary[name].write_bytes(data)
        for other in others:
            (out / other).unlink(missing_ok=True)
        shutil.rmtree(packed, ignore_errors=True)
        if weights_folder.exists():
            shutil.copytree(weights_folder, packed)
        for name in files:
            temporary[name].replace(out / name)
    except OSError as error:
        raise KitError(f"cannot write {out}: {error.strerror or error}",
                       "make the folder writable, or choose another one with --out") from error
    finally:
        for path in temporary.values():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _metadata(competition: Competition, ref: str, kind: str, accelerator: str,
              datasets: list[str]) -> dict[str, Any]:
    """`kernel-metadata.json`. Internet is on unless it is said to be off; the title must slugify to the id."""
    return {"id": ref, "title": weights.title_of(ref.split("/")[1]), "code_file": KINDS[kind], "language": "python",
            "kernel_type": kind, "is_private": True, "enable_internet": False, **ACCELERATORS[accelerator],
            "dataset_sources": datasets, "competition_sources": [competition.slug],
            "kernel_sources": [], "model_sources": [], "keywords": []}


def _checked_user(user: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", user):
        return user
    raise KitError(f"{user!r:.60} cannot be the name of a Kaggle account",
                   "give --user as it stands in the address of the account's page: kaggle.com/NAME")


def _checked_slug(slug: str) -> str:
    if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug) and 5 <= len(slug) <= weights.LONGEST_SLUG:
        return slug
    raise KitError(f"{slug!r} cannot be the slug of a kernel: Kaggle would store it under another name",
                   f"use 5 to {weights.LONGEST_SLUG} of a–z and 0–9, with single dashes between words")


# -- the packed source ----------------------------------------------------------------------------------------------


def pack_source() -> bytes:
    """The kit's package as a zip whose bytes depend on its files alone: sorted, and dated 1980."""
    package = Path(kit.__file__).parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(path for path in package.rglob("*") if path.suffix in PACKED):
            entry = zipfile.ZipInfo(f"kit/{path.relative_to(package).as_posix()}")  # its default date is 1980-01-01
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def _facts(competition: Competition, accelerator: str) -> dict[str, str]:
    """What the code file says about itself to the person who opens it."""
    from kit.pipeline import source_commit

    return {"title": competition.title, "url": competition.url, "version": kit.__version__, "commit": source_commit(),
            "accelerator": accelerator}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
