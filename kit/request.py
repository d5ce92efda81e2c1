"""What the user asked for: options and names → config, data and folders that exist.

In go the words of a command line (or of a notebook); out comes a `Request`, checked, with every default filled in and
said. Nothing is trained or written here.
"""

import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kit import storage
from kit.config import RunConfig, differences, fits
from kit.data import competition as competitions
from kit.data import source as sources
from kit.data.competition import Competition
from kit.data.source import DataFolder
from kit.data.table import Table, read_table
from kit.errors import KitError
from kit.progress import Progress
from kit.runfolder import RunFolder, check_run_name
from kit.training import models, settings
from kit.training.records import read_config

PathOrName = TypeVar("PathOrName", str, Path)
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Request:
    """A run to make or to continue."""

    config: RunConfig
    data: DataFolder
    run: RunFolder
    resume: bool
    force: bool  # a run of that name is to be replaced

    def cv(self, progress: Progress) -> Path:
        """Train and report; the run's folder."""
        from kit import pipeline

        pipeline.cv(self.config, self.data, self.run, progress, self.resume, force=self.force)
        return self.run.path

    def submit(self, submissions: Path, upload: bool, message: str, progress: Progress) -> tuple[Path, list[str]]:
        """`cv`, then the folder to hand in, its row in the ledger, and for `upload` what Kaggle said to it."""
        from kit import pipeline
        from kit.delivery import ledger
        from kit.delivery import upload as uploading

        about = self.data.competition
        if upload:
            uploading.check_takes_files(about)
        folder = pipeline.submit(self.config, self.data, self.run, submissions, progress, self.resume, self.force)
        ledger.record(folder)
        file = folder / "submission.csv"
        sent = uploading.upload(file, about, message, progress=progress.say).lines() if upload else []
        return folder, [f"submission: {file}", *sent]


def open_request(competition: Competition, progress: Progress, *, data_dir: Path = Path("data"), fetch: bool = False,
                 model: str | None = None, setting: str | None = None, run: str | None = None, resume: bool = False,
                 force: bool = False, runs_dir: Path = Path("runs"), time_budget: str | None = None,
                 **options: Any) -> Request:
    """The request of `kit cv` and `kit submit`; `options` are RunConfig's. KitError for what cannot be.

    `fetch` gets the data first. Without `model` and `setting`, the setting that suits data and machine is chosen, and
    said; other options go before what a setting says. `resume` without a name continues the newest unfinished run with
    the same options.
    """
    for name, value in (("data_dir", data_dir), ("runs_dir", runs_dir), ("model", model), ("setting", setting),
                        ("run", run), ("time_budget", time_budget)):
        if not isinstance(value, str | Path if name.endswith("_dir") else str | None):
            raise KitError(f"{name}={value!r:.60} is of the wrong kind",
                           "write it as text, as on the command line: see kit cv --help")
    for name, wish in (("fetch", fetch), ("resume", resume), ("force", force)):
        if not isinstance(wish, bool):
            raise KitError(f"{name}={wish!r:.60} is of the wrong kind", "give True or False")
    if resume and force:
        raise KitError("--resume goes on with a run and --force replaces it", "give one of the two")
    if run is not None:
        check_run_name(run)
    data_dir, runs_dir = expanded(Path(data_dir)), expanded(Path(runs_dir))
    options = {name: value.item() if isinstance(value, np.generic) else value
               for name, value in options.items() if value is not None}
    if model is not None:
        options["models"] = model_names(model)
        for name in options["models"]:
            models.get(name)
    if time_budget is not None:
        options["time_budget"] = seconds(time_budget)
    chosen = settings.get(setting) if setting else None
    config = RunConfig(competition.slug, **options)
    data = sources.download(competition, None, data_dir, progress=progress) if fetch else \
        sources.find_data(competition, data_dir)
    if model is None and chosen is None:
        chosen, why = settings.suitable(data.is_sample, config.limit is not None)
        progress.say(f"setting: {chosen.name}, {chosen.about}, {why}; choose with --setting or --model")
    if chosen:
        config = RunConfig(competition.slug, **{**chosen.options(), **options})
    unfinished = None if force or run else find_unfinished(config, runs_dir)
    if unfinished and not resume:
        progress.say(f"the run {unfinished} has the same options and is not finished: continue it with --resume")
    name = run or (resume and unfinished) or _new_name(config, Path(runs_dir))
    folder = RunFolder(Path(runs_dir) / name)
    if resume and not folder.config.is_file():
        raise KitError(f"there is no run {name!r} in {runs_dir} to resume", "leave --resume out to start it")
    return Request(config, data, folder, resume, force)


def model_names(text: str) -> tuple[str, ...]:
    """`cnn, mlp` → both."""
    return tuple(part.strip() for part in text.split(","))


def find_unfinished(config: RunConfig, runs_dir: Path) -> str | None:
    """Name of the newest run with this config that has no report."""
    there = [path.parent for path in Path(runs_dir).glob("*/config.json")]
    for run in sorted(there, key=lambda run: -(run / "config.json").stat().st_mtime):
        try:
            stored = read_config(run)
        except KitError:
            continue
        if not (run / "report.json").is_file() and not differences(stored.to_dict(), config.to_dict()):
            return run.name
    return None


def _new_name(config: RunConfig, runs_dir: Path) -> str:
    """Model and time; two runs may begin in the same second."""
    name = f"{'+'.join(config.models)}-{datetime.now():%Y%m%d-%H%M%S}"
    return next(each for each in (name, *(f"{name}-{n}" for n in range(2, 1000))) if not (runs_dir / each).exists())


def seconds(text: str) -> float:
    """`110m`, `2h`, `90s` or plain seconds."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)([smh]?)", text.strip())
    if not match:
        raise KitError(f"{text!r} is no duration", "write it like 110m, 2h or 90s")
    return float(match[1]) * UNITS[match[2]]


# -- things that exist ----------------------------------------------------------------------------------------------


def expanded(path: PathOrName) -> PathOrName:
    """`path` with the home folder for a `~` in its beginning; a name that only begins so stays as it is."""
    return type(path)(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser raises where there is no such user


def existing_run(name: str, runs_dir: Path = Path("runs")) -> RunFolder:
    """The folder of a run, by name or path. KitError if there is none."""
    for path in (Path(runs_dir) / name, Path(expanded(name))):
        if (path / "config.json").is_file() and (path / "folds.csv").is_file():
            return RunFolder(path)
    there = sorted(path.parent.name for path in Path(runs_dir).glob("*/config.json"))
    raise KitError(f"there is no run {name!r} in {runs_dir}", f"choose one of: {', '.join(there) or '(no runs yet)'}")


def scored_folder(name: str) -> Path:
    """A run or submission folder that holds OOF probs, by name or path; runs go first."""
    for path in (Path("runs") / name, Path("submissions") / name, Path(expanded(name))):
        if (path / "oof.npz").is_file():
            return path
    raise KitError(f"there are no OOF probs of {name!r} in runs/ or submissions/", "give the name of a finished run")


def data_of(run: RunFolder, data_dir: Path) -> DataFolder:
    """The data that a run was made from. KitError where what is there now is other data."""
    competition = competitions.get(read_config(run.path).competition)
    about = storage.read_json(run.config, "data")["data"]
    if not isinstance(about, dict) or not isinstance(about.get("sha256"), dict) \
            or not fits(about.get("is_sample"), bool):
        raise storage.damaged(run.config, "it does not say which data the run was trained on")
    data = sources.data_folder(competition, data_dir, sample=about["is_sample"])
    if data.sha256 != about["sha256"]:
        raise KitError(f"{data.path} is not the data that {run.name} was trained on", "put the old data back")
    return data


def test_ids(competition: Competition, test: Path | None, data_dir: Path) -> np.ndarray | None:
    """Ids of a test file; without one, of the data folder's. KitError where there is neither."""
    return read_table(test, competition, labelled=False).ids if test else \
        sources.find_data(competition, data_dir).test().ids


def training_table(competition: Competition, data_dir: Path) -> Table | None:
    """The training file, if it is there: a page without pictures is better than none."""
    try:
        return sources.find_data(competition, data_dir).train()
    except KitError:
        return None
