"""A run's config.json: written when the run begins, and compared with when it is resumed.

It holds what the result depends on: the config, the data, the code, the machine, and who trains in
which precision. `kit.training.records` reads it back.
"""

import hashlib
import platform
import re
import shlex
import sys
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from kit.core import backend, installation, provenance, storage
from kit.core.config import RunConfig, differences
from kit.core.errors import KitError
from kit.core.run_folder import RunFolder, finished_folds
from kit.data import competition as competitions
from kit.data.source import DataFolder, changed_files
from kit.training import executors
from kit.training.records import SETTLED, read_config, read_data_record, read_settled

FOLDER_OPTIONS = ("--data-dir", "--runs-dir", "--submissions")


def is_begun(run: RunFolder, config: RunConfig, data: DataFolder, resume: bool) -> bool:
    """Whether the run exists. KitError unless it may be continued, or begun, with these options."""
    if not run.config.is_file():
        if finished_folds(run.path):
            raise KitError(f"{run.path} has trained folds, but not the config.json that says how "
                           "they were trained",
                           "train them again with --force, or choose another name with --run")
        return False
    if not resume:
        raise KitError(f"the run {run.name!r} exists in {run.path.parent}",
                       "continue it with --resume, replace it with --force, or choose another name "
                       "with --run")
    if changed := changes(run, config.to_dict(), data.sha256, backend.load()):
        raise KitError(f"the run {run.name!r} was made differently: "
                       f"{'; '.join(what for what, _ in changed)}",
                       f"{'; '.join(dict.fromkeys(fix for _, fix in changed))}; or start a new run "
                       "with --run")
    return True


def changes(run: RunFolder, config: dict[str, Any], sha256: dict[str, str],
            keras: str) -> list[tuple[str, str]]:
    """What has changed since a run began, so that it cannot be continued; each change with its fix.

    config, sha256 (of the tables), keras (its backend): as they are now.
    """
    stored, began = storage.read_json(run.config, "code"), read_config(run.path).to_dict()
    before = read_settled(run.path)["backend"]
    changed = [(what, "give the same options") for what in differences(began, config)]
    if files := changed_files(read_data_record(run.path)["sha256"], sha256):
        changed.append((f"data: {files}", "put the old data back"))
    if stored["code"] != provenance.code_hash():
        commit = re.fullmatch("[0-9a-f]{40}", str(stored.get("git_commit")))
        changed.append(("the training code", f"go back to the kit's commit {commit[0]}" if commit
                        else "go back to the kit's code of then"))
    if before != keras:
        changed.append((f"KERAS_BACKEND: {before} → {keras}", f"set KERAS_BACKEND={before}"))
    if run.guesses(1).is_file() and began["class_prior"] != config["class_prior"]:
        changed.append((f"class_prior: {began['class_prior']} → {config['class_prior']}, and "
                        "folds have learnt from it", "give the same options"))
    return changed


def settle_as_begun(run: RunFolder, config: RunConfig) -> tuple[RunConfig, str, str]:
    """`executors.settle` with the precision and threads that the run began with.

    Also with its executor, unless the config names one. KitError where this machine does not have
    that precision: folds of two precisions cannot be compared.
    """
    began = read_settled(run.path)
    speed, slow = backend.precision_support(began["precision"])
    if speed == backend.NONE:
        raise KitError(f"the run {run.name!r} was begun in {began['precision']}: {slow}",
                       "resume it on a machine like the one that it was begun on, or start a new "
                       "run with --run")
    settled, _, note = executors.settle(
        replace(config, precision=began["precision"], threads=began["threads"]), began["executor"])
    why = f"as it began; {slow}: slow, but the folds stay comparable" if slow else "as it began"
    return settled, why, note


def write_config(run: RunFolder, config: RunConfig, data: DataFolder, settled: RunConfig) -> None:
    """Write config.json: the config, and what else the result depends on.

    Of a run that is resumed, only the config changes.
    """
    if run.config.is_file():
        stored = storage.read_json(run.config)
        storage.write_json(run.config, {**stored, "config": config.to_dict()})
        return
    environment = backend.describe()
    typed = sys.argv[1:] if Path(sys.argv[0]).name in ("kit", "__main__.py") \
        else ["cv", *data.competition.option,
              *replace(config, competition=RunConfig.competition).options()]
    # A report is handed on, and this machine's folders are of no use to whoever reads it.
    typed = [word for before, word in pairwise(["", *typed])
             if before not in FOLDER_OPTIONS and word.partition("=")[0] not in FOLDER_OPTIONS]
    for path, text in config.code.items():  # to be read; the run itself takes them from its config
        storage.write_text(run.path / Path(path).name, text)
    sums = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in config.code.items()}
    storage.write_json(run.config, {
        "config": config.to_dict(), **({"own_files": sums} if sums else {}),
        "command": shlex.join(["kit", *typed]), **origin(data),
        "code": provenance.code_hash(), "environment": environment,
        "settled": {**{name: getattr(settled, name) for name in SETTLED},
                    "backend": environment["backend"]}})


def origin(data: DataFolder) -> dict[str, Any]:
    """From which data, by which commit, when and where a result was made: a part of config.json."""
    return {"data": {"source": data.source, "is_sample": data.is_sample, "sha256": data.sha256},
            **competitions.record(data.competition),
            "git_commit": installation.source_commit(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"), "machine": platform.node()}
