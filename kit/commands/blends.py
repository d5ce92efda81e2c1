"""Finds the folder of a blend and the runs that it is made of, by name.

A blend has no folder in `runs/`, since it trained nothing: its submission folder is all there is,
and the `blend` in its config.json names its runs, their weights, their checksums, and where they
lie if that is below the folder that holds `submissions/`.
"""

import contextlib
from datetime import datetime
from pathlib import Path
from typing import Any

from kit.commands.command import expand_home
from kit.core import storage
from kit.core.errors import KitError
from kit.core.run_folder import check_run_name
from kit.ensembling.blend_runs import FILES, project_of


def new_folder(name: str | None, runs: list[Path], runs_dir: Path, submissions: Path,
               force: bool) -> Path:
    """The folder of a new blend. KitError where its name is taken; force: only by another blend."""
    name = check_run_name(name or f"blend-{datetime.now():%Y%m%d-%H%M%S}", "--submissions")
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
    return next(filter(is_blend, (submissions / name, Path(expand_home(name)))), None)


def is_blend(folder: Path) -> bool:
    """Whether it is the folder of a blend. A damaged submission is none: kit report mends it."""
    with contextlib.suppress(KitError):
        return (folder / "config.json").is_file() and read_blend(folder) is not None
    return False


def read_blend(folder: Path) -> dict[str, Any] | None:
    """The `blend` in a folder's config.json; None for a run that was trained."""
    blend = storage.read_json(folder / "config.json", "config").get("blend")
    return blend if isinstance(blend, dict) else None


def find_runs(blend: Path, runs_dir: Path) -> list[Path]:
    """The folders of a blend's runs. KitError where one of them is gone, or not the same now."""
    about = read_blend(blend) or {}
    found = []
    try:
        named = [(str(run["name"]), dict(run["sha256"]), run.get("folder"))
                 for run in about["runs"]]
    except (KeyError, TypeError, ValueError):
        raise storage.damaged(blend / "config.json", "it does not say what was blended") from None
    again = f"blend again, from the runs that there are: kit blend RUN RUN --run {blend.name} " \
            "--force"
    for name, sha256, folder in named:
        places = [parent / name for parent in (runs_dir, blend.parent, Path("submissions"))]
        lay = project_of(blend) / folder if isinstance(folder, str) else None
        same = [path for path in (*places, *([lay] if lay else []))
                if all((path / file).is_file() and storage.sha256_file(path / file)
                       == sha256.get(file) for file in FILES)]
        if same:
            found.append(same[0])
            continue
        said = f"the run {name}, of which {blend.name} was blended,"
        if lay and (lay / FILES[0]).is_file():
            raise KitError(f"{said} was made again since, in {folder}", again)
        # Its submission may be left, whose probs are rounded, or another run of its name.
        other = next((f", and {path} has other probs" for path in places
                      if (path / FILES[0]).is_file()), "")
        if lay:
            raise KitError(f"{said} is no longer in {folder}{other}",
                           f"put its folder back, or {again}")
        raise KitError(f"{said} is neither in {runs_dir} nor in {blend.parent}{other}",
                       f"say in which folder it lies with --runs-dir, or {again}")
    return found
