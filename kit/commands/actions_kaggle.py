"""The functions behind `kit kernel …` and `kit ledger …`; each returns a `Result`.

The rooms are imported inside the functions, because the command line loads this module when it
starts.
"""

import functools
from pathlib import Path

from kit.commands.command import (
    Result,
    check_suffix,
    command,
    notebook_progress,
)
from kit.core.durations import parse_duration
from kit.core.progress import Progress
from kit.data import competition as competitions
from kit.data.competition import KANNADA

LEDGER = Path("submissions/ledger.csv")


@command
def build(out: str | Path = "kernel", competition: str = KANNADA.slug, user: str | None = None,
          slug: str | None = None, kind: str = "script", mode: str = "train",
          accelerator: str = "t4x2", run: str | None = None, model: str | None = None,
          folds: int | None = None, seeds: int | None = None, epochs: int | None = None,
          seed: int | None = None, time_budget: str | None = None, docker_image: str | None = None,
          augment: str | None = None, self_train: int | None = None,
          train_extra: bool | None = None, runs_dir: str | Path = "runs") -> Result:
    """Write a kernel folder that `kaggle kernels push` accepts."""
    from kit.commands import find_runs
    from kit.kaggle import credentials
    from kit.kernel import builder
    from kit.training import own_models

    trained = find_runs.find_trained(run, Path(runs_dir)).path if run else None
    models, code = own_models.parse_models(model) if model is not None else (None, {})
    if augment is not None:
        augment, more = own_models.parse_augment(augment)
        own_models.add_code(code, more)
    minutes = parse_duration(time_budget) / 60 if time_budget else None
    notes: list[str] = []
    folder = builder.build(
        Path(out), competitions.get(competition), user or credentials.user_name(), slug, kind, mode,
        accelerator, trained, models, folds, seeds, epochs, seed, minutes, docker_image, augment,
        code, self_train, train_extra, notes.append)
    minutes = builder.MINUTES[accelerator] if minutes is None else minutes
    time = f"{minutes:g} minutes" if minutes >= 1 else f"{minutes * 60:g} seconds"
    return Result({"path": folder, "notes": notes},
                  [*notes, f"{folder}: done within {time} on Kaggle; try it with "
                           f"kit kernel rehearse {folder}"])


@command
def rehearse(folder: str | Path = "kernel", hidden: str | Path | None = None,
             time_limit: str = "2h", mount: list | tuple | None = None, layout: str = "new",
             data_dir: str | Path = "data", competition: str = KANNADA.slug,
             progress: Progress | None = None) -> Result:
    """Run a kernel folder here as Kaggle would, on a hidden test file; is there a submission?"""
    from kit.data import source
    from kit.rehearsal import rehearse as rehearsal

    folder, mounts, chosen = Path(folder), mount or (), competitions.get(competition)
    about = rehearsal.find_inputs(folder, mounts, layout, chosen).competition
    data = source.find_data(about, Path(data_dir))
    verdict = rehearsal.rehearse(
        folder, data.path, Path(hidden) if hidden else None, parse_duration(time_limit),
        say=(progress or notebook_progress()).say, mounts=mounts, layout=layout,
        competition=chosen)
    return Result(verdict.to_dict(), verdict.lines(), ok=verdict.ok)


@command
def push(folder: str | Path = "kernel", competition: str = KANNADA.slug, wait: bool = False,
         submit: bool = False, message: str = "", score_timeout: str = "4h",
         kernel_timeout: str = "14h", resend: bool = False, session_limit: str | None = None,
         progress: Progress | None = None) -> Result:
    """Push a kernel folder; `wait` for that version, and `submit` what it wrote."""
    from kit.kernel import push as pushing

    pushed = pushing.push(
        Path(folder), competitions.get(competition), wait, submit, message,
        (progress or notebook_progress()).say, kernel_timeout=parse_duration(kernel_timeout),
        score_timeout=parse_duration(score_timeout), resend=resend,
        session_limit=parse_duration(session_limit) if session_limit else None)
    return Result(pushed.to_dict(), pushed.lines())


@command
def status(folder: str | Path = "kernel", competition: str = KANNADA.slug,
           progress: Progress | None = None) -> Result:
    """Where the version is that was pushed from a folder, and what is left to spend."""
    from kit.kaggle.session import quota_lines
    from kit.kaggle.submissions import limit_lines, submission_line
    from kit.kernel import push as pushing

    state = pushing.status(Path(folder), competitions.get(competition),
                           (progress or notebook_progress()).say)
    version, submission = f"{state['kernel']} v{state['version']}", state["submission"]
    said = [f"{version}: {state['status'].lower()} {state['url']}", *state["log"],
            *filter(None, [state["failure"]])]
    if state["changed_since"]:
        said.append(f"{folder} has changed since this version was pushed: kit kernel push {folder} "
                    "makes a new one")
    if submission:
        said.append(submission_line(submission["ref"], submission["public_score"],
                                    submission["private_score"],
                                    submission["error"] or submission["status"].lower()))
    return Result(state, [*said, *quota_lines(state["quota"]), *limit_lines(state["limits"])])


@command
def logs(folder: str | Path = "kernel", competition: str = KANNADA.slug, follow: bool = False,
         printed: bool = True, progress: Progress | None = None) -> Result:
    """The log of the version that was pushed; `printed`: print each line when it arrives."""
    from kit.kernel import push as pushing

    show = functools.partial(print, flush=True) if printed else pushing.silent
    state = pushing.logs(Path(folder), competitions.get(competition), follow, show,
                         (progress or notebook_progress()).say)
    return Result(state, [f"{state['kernel']} v{state['version']}: {state['status'].lower()}"])


@command
def submit(folder: str | Path = "kernel", competition: str = KANNADA.slug, message: str = "",
           score_timeout: str = "4h", resend: bool = False,
           progress: Progress | None = None) -> Result:
    """Hand in the version that was pushed from a folder."""
    from kit.kernel import push as pushing

    pushed = pushing.submit(Path(folder), competitions.get(competition), message,
                            progress=(progress or notebook_progress()).say,
                            score_timeout=parse_duration(score_timeout), resend=resend)
    return Result(pushed.to_dict(), pushed.lines())


@command
def show_ledger(path: str | Path = LEDGER, plot: str | Path | None = None) -> Result:
    """Every submission with its scores, and how good the estimates were; `plot`: a .svg file."""
    from kit import ledger
    from kit.core import storage

    if plot is not None:
        check_suffix(plot, ".svg", "--plot")
        storage.write_text(Path(plot), ledger.plot(Path(path)), record=False)
    summary = ledger.summary(Path(path))
    return Result(summary.to_dict(), summary.lines())


@command
def sync_ledger(competition: str = KANNADA.slug, path: str | Path = LEDGER,
                progress: Progress | None = None) -> Result:
    """Fetch the scores from Kaggle into the ledger."""
    from kit import ledger

    changed = ledger.sync(competitions.get(competition), Path(path),
                          (progress or notebook_progress()).say)
    return Result({"changed": changed}, [f"new scores in {changed} row{'s' * (changed != 1)}"])
