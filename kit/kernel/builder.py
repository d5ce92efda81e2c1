"""Build a kernel folder that `kaggle kernels push` accepts: `kit kernel build`.

A kernel is a single file, so it contains the whole kit as a zip in base64, and the zip's hash. The
user's own files that the kernel needs lie in the same zip, in a folder beside the kit.
Beside it are `kernel-metadata.json` and, in predict mode, a folder with the run's weights, to be
uploaded as a dataset. The folder does not depend on when or where it was built: the same commit,
with the same tags, gives the same bytes. So it has no `checksums.json`, which would also keep the
hashes of an earlier build.
"""

import contextlib
import io
import json
import re
import shlex
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kit.core import installation, os_errors, provenance, storage
from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder
from kit.data import competition as competitions
from kit.data.competition import Competition, changed_settings
from kit.data.folds import HARDER_NOTE
from kit.kernel import template, weights
from kit.training.records import read_config_and_competition, untrained

METADATA = "kernel-metadata.json"
KINDS = {"script": "kernel.py", "notebook": "kernel.ipynb"}
MODES = ("train", "predict")
ACCELERATORS: dict[str, dict[str, Any]] = {
    "t4x2": {"enable_gpu": True, "enable_tpu": False, "machine_shape": "NvidiaTeslaT4"},  # two
    "tpu": {"enable_gpu": False, "enable_tpu": True, "machine_shape": "TpuV5E8"},
    "none": {"enable_gpu": False, "enable_tpu": False},
}
# What a train kernel trains if it is not told: one of kit.training.settings
TRAINING_SETTINGS = {"t4x2": "t4x2-2h", "tpu": "t4x2-2h", "none": "cpu-night"}
MINUTES = {"t4x2": 110, "tpu": 110, "none": 520}
# Minutes until Kaggle ends a session: by the rules of Kannada-MNIST, and in any competition
RULES_LIMIT = {"t4x2": 120, "tpu": 120, "none": 540}
SESSION_LIMIT = {"t4x2": 720, "tpu": 540, "none": 720}
PLACEHOLDER_USER = "INSERT_USERNAME_HERE"  # of a folder built without --user
# Images by name: that of the kernel's first version, and the newest
PINNED = ("original", "latest")
IMAGE = r"[a-z0-9][\w.-]*(/[\w.-]+)+@sha256:[0-9a-f]{64}"  # one by its digest
PACKED_SUFFIXES = {".py", ".toml", ".html", ".css", ".js"}
COMPETITION_FILE = "competition.toml"  # the user's, in OWN_FILES
OWN_FILES = "own_files"  # the folder of the user's own files, beside that of the kit


def build(out: Path, competition: Competition, user: str | None = None, slug: str | None = None,
          kind: str = "script", mode: str = "train", accelerator: str = "t4x2",
          run: Path | None = None, models: tuple[str, ...] | None = None, folds: int | None = None,
          seeds: int | None = None, epochs: int | None = None, seed: int | None = None,
          minutes: float | None = None, docker_image: str | None = None,
          augment: str | None = None, code: Mapping[str, str] | None = None,
          self_train: int | None = None, train_extra: bool | None = None,
          say: Callable[[str], None] = lambda _: None) -> Path:
    """Write the kernel folder `out` and return its path. Other files in that folder are left alone.

    user: the Kaggle account; without it the folder gets a placeholder and cannot be pushed. run:
    the run whose weights a `predict` kernel uses, or the submission that keeps them. models, folds,
    seeds, epochs, seed, self_train, train_extra: what a `train` kernel trains; without models, the
    accelerator's setting.
    minutes: when everything ends, which must be below Kaggle's limit. docker_image: Kaggle's image
    to run in, by digest or as `original` or `latest`. augment: FILE.py:NAME. code: the user's own
    files that it and the models are from, their text by their paths. say: takes what there is to
    know of the run, and that there is no user. KitError for an invalid choice, an option of the
    other mode, a slug that Kaggle would change, a time that Kaggle does not give, a run of another
    competition, of the split `harder`, or without all of its weights unless its time budget left
    them out, or kept weights of other models than the kit's; the folder is then unchanged.
    """
    for option, value, choices in (("kind", kind, tuple(KINDS)), ("mode", mode, MODES),
                                   ("accelerator", accelerator, tuple(ACCELERATORS))):
        if value not in choices:
            raise KitError(f"--{option} {value!r} is unknown",
                           f"choose one of: {', '.join(choices)}")
    # Options that the mode would ignore
    asked = {"model": models, "augment": augment, "folds": folds, "seeds": seeds, "epochs": epochs,
             "seed": seed, "self-train": self_train, "train-extra": train_extra}
    training = ", ".join(f"--{option}" for option, value in asked.items() if value is not None)
    if mode == "train" and run is not None:
        raise KitError(f"--run {Path(run).name} is for a kernel that predicts, and this one trains",
                       "add --mode predict to take its weights along, or leave --run out")
    if mode == "predict" and training:
        raise KitError(f"{training}: a predict kernel trains nothing, it takes its models from "
                       "--run", f"leave {training} out, or build with --mode train")
    if mode == "predict" and run is None:
        raise KitError("a predict kernel needs the weights of a run",
                       "name one: --run RUN, from runs/, or a submission that keeps its weights")
    if not user:
        say("without a user name this kernel can be rehearsed, but not pushed: for that build it "
            "again with --user NAME, as in the address of your page on Kaggle, kaggle.com/NAME")
    slug, user = slug or f"{competition.slug}-kit", user or PLACEHOLDER_USER
    _check_names(slug, user)
    ref, dataset = f"{user}/{slug}", f"{user}/{weights.dataset_slug(slug)}"
    own = MINUTES[accelerator]
    minutes = own if minutes is None else minutes
    if minutes <= 0:
        raise KitError(f"a kernel cannot do anything in {minutes:g} minutes",
                       "give it more, such as 110m")
    limit, whose = kaggle_limit(competition, accelerator)
    if minutes >= limit:
        raise KitError(f"--time-budget {minutes:g}m is too long: Kaggle ends this kernel "
                       f"(--accelerator {accelerator}) after {limit // 60} hours{whose}, and a "
                       "kernel that it ends is no submission",
                       f"leave --time-budget out, which gives it {own}m, or allow it less than "
                       f"{limit}m")
    metadata = {
        # Kaggle turns the title into a slug, which must be that of the id
        "id": ref, "title": weights.title_from_slug(slug), "code_file": KINDS[kind],
        "language": "python", "kernel_type": kind, "is_private": True, "enable_internet": False,
        **ACCELERATORS[accelerator], "dataset_sources": [dataset] if mode == "predict" else [],
        "competition_sources": [competition.slug], "kernel_sources": [], "model_sources": [],
        "keywords": []}
    if docker_image in PINNED:
        metadata["docker_image_pinning_type"] = docker_image
    elif docker_image and re.fullmatch(IMAGE, docker_image):
        metadata["docker_image"] = docker_image
    elif docker_image is not None:
        raise KitError(f"--docker-image {docker_image!r:.90} is no image of Kaggle's",
                       f"give {' or '.join(PINNED)}, or one by its digest, as kaggle kernels pull "
                       "-m shows it: gcr.io/kaggle-images/python@sha256:...")
    settings: dict[str, Any] = {"competition": competition.slug, "mode": mode}
    own_files: dict[str, str] = {}  # text by name: the user's files that the kernel needs
    if competition.file is not None:
        settings["competition_file"] = COMPETITION_FILE
        own_files[COMPETITION_FILE] = competition.file.text
    if mode == "train":
        settings |= _training(competition, accelerator, models=models, n_folds=folds, n_seeds=seeds,
                              epochs=epochs, seed=seed, augment=augment, code=code,
                              self_train=self_train, train_extra=train_extra, say=say)
        own_files |= {Path(path).name: text for path, text in (code or {}).items()}
    with tempfile.TemporaryDirectory() as scratch:
        packed_weights = Path(scratch) / weights.FOLDER
        if run is not None:
            config, trained_for = read_config_and_competition(run)
            command = shlex.join(trained_for.option) or f"--competition {trained_for.slug}"
            if trained_for.slug != competition.slug:
                raise KitError(f"{run} was trained for {trained_for.slug}, not for "
                               f"{competition.slug}",
                               f"build it with {command}, or name another run with --run")
            if changed := changed_settings(trained_for, competition):
                raise KitError(f"{run} was trained for another {', '.join(changed)} of "
                               f"{competition.slug}", f"build it with {command} as it was then, or "
                               "name another run with --run")
            _check_run(RunFolder(run), config, say)
            digest = weights.pack(run, packed_weights, dataset)
            settings |= {"weights": dataset, "manifest_sha256": digest,
                         "class_prior": config.class_prior}
        settings["minutes"] = minutes
        if accelerator == "tpu":
            settings["backend"] = "jax"
        facts = {"title": competition.title, "url": competition.url,
                 "version": installation.kit_version(), "commit": installation.source_commit(),
                 "accelerator": accelerator}
        source = template.render(kind, settings, pack_source(own_files), facts)
        text = json.dumps(metadata, indent=2, ensure_ascii=False) + "\n"
        _write_folder(Path(out), {KINDS[kind]: source, METADATA: text.encode()}, packed_weights)
    return Path(out)


def kaggle_limit(competition: Competition, accelerator: str) -> tuple[int, str]:
    """The minutes after which Kaggle ends a kernel, and by which rules, as text."""
    # A competition of the user's own may have other rules
    if competition.code_only and competition.file is None:
        return RULES_LIMIT[accelerator], f" by the rules of {competition.title}"
    return SESSION_LIMIT[accelerator], ""


def _check_names(slug: str, user: str) -> None:
    """KitError for a name that Kaggle would not take, or take as another one."""
    if not (re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug)
            and 5 <= len(slug) <= weights.LONGEST_SLUG):
        raise KitError(f"{slug!r} cannot be the slug of a kernel: Kaggle would store it under "
                       "another name",
                       f"use 5 to {weights.LONGEST_SLUG} of a–z and 0–9, with single dashes "
                       "between words")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", user):
        raise KitError(f"{user!r:.60} cannot be the name of a Kaggle account",
                       "give --user as it stands in the address of the account's page: "
                       "kaggle.com/NAME")


def _check_run(run: RunFolder, config: RunConfig, say: Callable[[str], None]) -> None:
    """KitError for a run whose models are not to be handed in; of a partial one it is said."""
    if config.split == "harder":
        raise KitError(f"{run.name}: {HARDER_NOTE}",
                       "train the recipe without --split harder, and build from that run")
    left, compared = untrained(run, config), run.against.is_file()
    if left and (compared or config.time_budget is None):
        why = " while it was compared with another run (kit cv --against)" * compared
        raise KitError(f"{run.name} is partial: {left}{why}",
                       f"train them first: {run.resume_command}")
    if left:
        say(f"{run.name} is partial: {left}, since its time budget was too short; to train them: "
            f"{run.resume_command} --time-budget 2h")
    # The kit may have other models by now than those whose weights were committed.
    if run.keeps_weights and storage.read_json(run.config).get("code") != provenance.code_hash():
        from kit.ensembling.predict import check_kept_weights

        check_kept_weights(run, config)


def _training(competition: Competition, accelerator: str, say: Callable[[str], None],
              **asked: Any) -> dict[str, Any]:
    """The SETTINGS of a train kernel; what is not asked for is as in the accelerator's setting.

    say: takes what it trains, in words. KitError if a model is unknown, or one of the user's own
    does not train.
    """
    from kit.training import planning, settings
    from kit.training.jobs import make_jobs
    from kit.training.own_models import recipe_of

    own = {} if asked["models"] else settings.get(TRAINING_SETTINGS[accelerator]).options()
    if asked["train_extra"]:
        competition.require_extra()
    elif not competition.extra:
        own["train_extra"] = False
    config = RunConfig(competition.slug,
                       **own | {name: value for name, value in asked.items() if value is not None})
    for name in config.models:
        recipe = recipe_of(config, name)
        if config.code:
            from kit.training.trainer import try_step

            try_step(recipe, competition)
    jobs = make_jobs(config, config.precision)
    trained = planning.what_is_trained(config, jobs, jobs, config.self_train)
    also = f", from {competition.extra} as well" * config.train_extra
    say(f"trains {trained}{also}, as far as its time allows")
    augment = {} if config.augment is None else {"augment": Path(config.augment).name}
    return {"models": list(config.models), "folds": config.n_folds, "seeds": config.n_seeds,
            "epochs": config.epochs, "self_train": config.self_train,
            "train_extra": config.train_extra, "seed": config.seed,
            "class_prior": config.class_prior, **augment}


def _write_folder(out: Path, files: dict[str, bytes], weights_folder: Path) -> None:
    """Write the kernel's files into `out`, and remove those of an earlier build.

    KitError if something else is in the way; `out` is then unchanged.
    """
    others, packed = set(KINDS.values()) - set(files), out / weights.FOLDER
    temporary = {name: out / f".{name}.tmp" for name in files}
    for path in (*(out / name for name in (*files, *others)), packed):
        if path.exists() and path.is_dir() != (path == packed):
            raise KitError(f"cannot write {path}: there is a "
                           f"{'folder' if path.is_dir() else 'file'} of that name",
                           "move it away, or choose another folder with --out")
    if out.exists() and not out.is_dir():
        raise KitError(f"--out {out} is a file",
                       "name a folder, new or one that an earlier build has made")
    try:
        with os_errors.disk_errors(out, "write"):
            out.mkdir(parents=True, exist_ok=True)
            for name, data in files.items():
                temporary[name].write_bytes(data)
            for other in others:
                (out / other).unlink(missing_ok=True)
            shutil.rmtree(packed, ignore_errors=True)
            if weights_folder.exists():
                storage.copy_tree(weights_folder, packed)
            for name in files:
                temporary[name].replace(out / name)
    finally:
        for path in temporary.values():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def pack_source(own_files: Mapping[str, str]) -> bytes:
    """The kit's package as a zip, and beside it the user's own files (text by name) in OWN_FILES.

    Since Kaggle has not installed the kit, a file names its version.

    Its bytes depend on the files and the version alone: entries are sorted and dated 1980.
    """
    package = installation.KIT
    paths = sorted(path for path in package.rglob("*") if path.suffix in PACKED_SUFFIXES)
    files = {f"kit/{path.relative_to(package).as_posix()}": path.read_bytes() for path in paths}
    files[f"kit/{installation.PACKED_VERSION}"] = f"{installation.kit_version()}\n".encode()
    files |= {f"{OWN_FILES}/{name}": own_files[name].encode() for name in sorted(own_files)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)  # its default date is 1980-01-01
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return buffer.getvalue()


def packed_competition(settings: dict[str, Any]) -> Competition:
    """On Kaggle: the competition that a kernel with these SETTINGS was built for."""
    name = settings.get("competition_file")
    return competitions.get(settings["competition"]) if name is None \
        else competitions.from_text(packed_own_files()[name], name)


def packed_own_files() -> dict[str, str]:
    """On Kaggle: the user's own files that were packed with this kit, text by name."""
    folder = installation.KIT.parent / OWN_FILES
    return {path.name: path.read_text("utf-8") for path in sorted(folder.glob("*"))}
