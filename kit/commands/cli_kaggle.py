"""The commands between the competitor and Kaggle: `kit kernel …` and `kit ledger …`; one function each, no logic."""

import functools
from pathlib import Path
from typing import Annotated

import typer

from kit.commands import options
from kit.commands.options import Common, DataDir, RunsDir, takes
from kit.core.errors import KitError

kernel = typer.Typer(no_args_is_help=True, help="Take the kit to Kaggle and hand in from there.")
ledger = typer.Typer(no_args_is_help=True, help="Every submission with its CV, estimate and leaderboard scores.")

Folder = Annotated[Path, typer.Argument(help="A kernel folder, as kit kernel build writes it.")]
Message = Annotated[str, typer.Option(help="Beside the submission on Kaggle.")]
ScoreTimeout = Annotated[str, typer.Option(help="How long to wait for the score: 4h, 10m, 30s.")]
Resend = Annotated[bool, typer.Option(
    "--resend", help="What was sent last got no answer, and you have seen on Kaggle's page that it is not there.")]
KERNEL = Path("kernel")


@kernel.command()
@takes(options.common)
def build(
    common: Common,
    out: Annotated[Path, typer.Option(help="The folder to write.")] = KERNEL,
    user: Annotated[str | None, typer.Option(help="Your Kaggle user name.")] = None,
    slug: Annotated[str | None, typer.Option(help="Of the kernel; else <competition>-kit.")] = None,
    kind: Annotated[str, typer.Option(help="script or notebook.")] = "script",
    mode: Annotated[str, typer.Option(help="train there, or predict with the weights of a run.")] = "train",
    accelerator: Annotated[str, typer.Option(help="t4x2, tpu or none.")] = "t4x2",
    run: Annotated[str | None, typer.Option(help="The run whose weights a predict kernel takes along.")] = None,
    model: Annotated[str | None, typer.Option(
        help="What a train kernel trains: NAME,NAME; else the setting for its accelerator (see kit models).")] = None,
    folds: Annotated[int | None, typer.Option(help="Number of folds of a train kernel; else 5.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Trainings of each fold of a train kernel.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the model's own number.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of a train kernel; else 0.")] = None,
    time_budget: Annotated[str | None, typer.Option(
        help="All is over by then: 8h; else 110m, without a GPU 520m.")] = None,
    docker_image: Annotated[str | None, typer.Option(
        help="Kaggle's image to run in: original, latest, or one by digest (gcr.io/...@sha256:...).")] = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Write a folder that kaggle kernels push accepts.

    Example: kit kernel build --user me --kind notebook
    """
    from kit.commands import request
    from kit.kaggle import credentials
    from kit.kernel import builder as kernels

    trained = request.existing_run(run, runs_dir).path if run else None
    models = request.model_names(model) if model is not None else None
    folder = kernels.build(out, common.competition, user or credentials.user_name(), slug, kind, mode, accelerator,
                           trained, models, folds, seeds, epochs, seed,
                           request.seconds(time_budget) / 60 if time_budget else None, docker_image)
    common.show({"path": folder}, f"{folder}: try it with kit kernel rehearse {folder}")


@kernel.command()
@takes(options.common)
def rehearse(
    common: Common,
    folder: Folder = KERNEL,
    hidden: Annotated[Path | None, typer.Option(help="A hidden test file of your own.")] = None,
    time_limit: Annotated[str, typer.Option(help="Kaggle's, as 2h or 90m.")] = "2h",
    mount: Annotated[list[str] | None, typer.Option(
        metavar="FOLDER", help="Stands for a dataset, model, kernel output or second competition that the kernel "
        "reads; REF=FOLDER where the folder's name does not say which. Can be given several times.")] = None,
    layout: Annotated[str, typer.Option(
        help="Where Kaggle mounts the inputs: new, as for kernels that are pushed today, or old.")] = "new",
    data_dir: DataDir = Path("data"),
) -> None:
    """Run the kernel here as Kaggle would, on a hidden test file.

    Example: kit kernel rehearse kernel --time-limit 10m
    """
    from kit.commands import request
    from kit.data import source
    from kit.rehearsal import rehearse as rehearsal

    competition = rehearsal.find_inputs(folder, mount or (), layout).competition
    data = source.find_data(competition, data_dir)
    verdict = rehearsal.rehearse(folder, data.path, hidden, request.seconds(time_limit), say=common.progress.say,
                                 mounts=mount or (), layout=layout)
    common.show(verdict.to_dict(), *verdict.lines())
    raise typer.Exit(not verdict.ok)


@kernel.command()
@takes(options.common)
def push(
    common: Common,
    folder: Folder = KERNEL,
    wait: Annotated[bool, typer.Option("--wait", help="Follow this version to its end.")] = False,
    submit: Annotated[bool, typer.Option("--submit", help="Hand its submission.csv in, once it has ended.")] = False,
    message: Message = "",
    score_timeout: ScoreTimeout = "4h",
    kernel_timeout: Annotated[str, typer.Option(help="How long to wait for the kernel's end.")] = "14h",
    resend: Resend = False,
    session_limit: Annotated[str | None, typer.Option(
        help="Kaggle ends the session after so long, as 3h; else after its own limit.")] = None,
) -> None:
    """Push, wait for that version, hand it in, score.

    Example: kit kernel push --wait --submit --message first
    """
    from kit.commands.request import seconds
    from kit.kernel import push as pushing

    result = pushing.push(folder, common.competition, wait, submit, message, common.progress.say,
                          kernel_timeout=seconds(kernel_timeout), score_timeout=seconds(score_timeout), resend=resend,
                          session_limit=seconds(session_limit) if session_limit else None)
    common.show(result.to_dict(), *result.lines())


@kernel.command()
@takes(options.common)
def status(common: Common, folder: Folder = KERNEL) -> None:
    """Where the version that was pushed from this folder is."""
    from kit.kaggle.session import quota_lines
    from kit.kernel import push as pushing

    state = pushing.status(folder, common.competition, common.progress.say)
    common.show(state, f"{state['kernel']} v{state['version']}: {state['status'].lower()} {state['url']}",
                *state["log"], *filter(None, [state["failure"]]), *quota_lines(state["quota"]))


@kernel.command()
@takes(options.common)
def logs(
    common: Common,
    folder: Folder = KERNEL,
    follow: Annotated[bool, typer.Option("--follow", help="Line by line, until this version has ended.")] = False,
) -> None:
    """The log of the version that was pushed.

    Example: kit kernel logs --follow
    """
    from kit.kernel import push as pushing

    show = pushing.silent if common.as_json else functools.partial(print, flush=True)
    result = pushing.logs(folder, common.competition, follow, show, common.progress.say)
    common.show(result, f"{result['kernel']} v{result['version']}: {result['status'].lower()}")


@kernel.command()
@takes(options.common)
def submit(common: Common, folder: Folder = KERNEL, message: Message = "", score_timeout: ScoreTimeout = "4h",
           resend: Resend = False) -> None:
    """Hand in the version that was pushed.

    Example: kit kernel submit --message first
    """
    from kit.commands.request import seconds
    from kit.kernel import push as pushing

    result = pushing.submit(folder, common.competition, message, progress=common.progress.say,
                            score_timeout=seconds(score_timeout), resend=resend)
    common.show(result.to_dict(), *result.lines())


LedgerFile = Annotated[Path, typer.Option("--ledger", help="The ledger's file.")]


@ledger.command()
@takes(options.common)
def show(
    common: Common,
    path: LedgerFile = Path("submissions/ledger.csv"),
    plot: Annotated[Path | None, typer.Option(help="Also as a picture: a .svg file.")] = None,
) -> None:
    """The table, and how well the estimate has foretold the leaderboard."""
    from kit import ledger as book
    from kit.core import storage

    if plot is not None:
        if plot.suffix != ".svg":
            raise KitError(f"--plot {plot} is no .svg", "name a file that ends in .svg")
        storage.write_text(plot, book.plot(path), record=False)
    summary = book.summary(path)
    common.show(summary.to_dict(), *summary.lines())


@ledger.command()
@takes(options.common)
def sync(common: Common, path: LedgerFile = Path("submissions/ledger.csv")) -> None:
    """Fetch the scores from Kaggle."""
    from kit import ledger as book

    changed = book.sync(common.competition, path, common.progress.say)
    common.show({"changed": changed}, f"new scores in {changed} row{'s' * (changed != 1)}")
