"""Finds the folder of a blend and the runs that it is made of, by name.

A blend has no folder in `runs/`, since it trained nothing: its submission folder is all there is,
and the `blend` in its config.json names its runs, their weights and their checksums.
"""

import contextlib
from datetime import datetime
from pathlib import Path
from typing import Any

from kit.commands.command import expand_home
from kit.core import storage
from kit.core.errors import KitError
from kit.core.run_folder import check_run_name
from kit.ensembling.blend_runs import FILES


def new_folder(name: str | None, runs: list[Path], runs_dir: Path, submissions: Path,
               force: bool) -> Path:
    """The folder of a new blend. KitError where its name is taken; force: only by another blend."""
    name = check_run_name(name or f"blend-{datetime.now():%Y%m%d-%H%M%S}")
    folder = submissions / name
    if folder.resolve() in [path.resolve() for path in runs]:
        raise KitError(f"{name!r} is one of the runs to blend", "choose another name with --run")
    if (runs_dir / name / "config.json").is_file():
        raise KitError(f"the run {name!r} exists in {runs_dir}", "choose another name with --run")
    if (folder / "config.json").is_file():
        if read_blend(folder) is None:
            raise KitError(f"{folder} is the submission of a run that was trained",
                           "choose another name with --run")
        if not force:
            raise KitError(f"the blend {name!r} exists in {submissions}",
                           "replace it with --force, or choose another name with --run")
    return folder


def find_blend(name: str, submissions: Path = Path("submissions")) -> Path | None:
    """The folder of a blend, by name or path; None where there is none."""
    for path in (submissions / name, Path(expand_home(name))):
        with contextlib.suppress(KitError):  # kit report writes a damaged submission anew
            if (path / "config.json").is_file() and read_blend(path):
                return path
    return None


def read_blend(folder: Path) -> dict[str, Any] | None:
    """The `blend` in a folder's config.json; None for a run that was trained."""
    blend = storage.read_json(folder / "config.json", "config").get("blend")
    return blend if isinstance(blend, dict) else None


def find_runs(blend: Path, runs_dir: Path) -> list[Path]:
    """The folders of a blend's runs. KitError where one of them is gone, or not the same now."""
    about = read_blend(blend) or {}
    found = []
    try:
        named = [(str(run["name"]), dict(run["sha256"])) for run in about["runs"]]
    except (KeyError, TypeError, ValueError):
        raise storage.damaged(blend / "config.json", "it does not say what was blended") from None
    for name, sha256 in named:
        places = [parent / name for parent in (runs_dir, blend.parent, Path("submissions"))]
        same = [path for path in places
                if all((path / file).is_file() and storage.sha256_file(path / file)
                       == sha256.get(file) for file in FILES)]
        if not same:
            there = [path for path in places if (path / FILES[0]).is_file()]
            raise KitError(f"the run {name}, of which {blend.name} was blended, "
                           f"{'was made again since' if there else 'is not here any more'}",
                           "blend again, from the runs that there are: kit blend RUN RUN --run "
                           f"{blend.name} --force" if there else
                           f"put its folder back into {runs_dir} or {blend.parent}, or blend "
                           "others")
        found.append(same[0])
    return found
