"""`kit kernel …` and `kit ledger …`: each command declares its options and calls its function.

The functions are in `kit.commands.actions_kaggle`.
"""

from pathlib import Path
from typing import Annotated

import typer

from kit.commands import actions_kaggle
from kit.commands.actions_kaggle import LEDGER
from kit.commands.options import (
    AsJson,
    Augment,
    Competition,
    DataDir,
    Message,
    Quiet,
    RunsDir,
    TrainExtra,
    execute,
)
from kit.data.competition import KANNADA

kernel = typer.Typer(no_args_is_help=True, help="Take the kit to Kaggle and hand in from there.")
ledger = typer.Typer(no_args_is_help=True,
                     help="Every submission with its CV, estimate and leaderboard scores.")

Folder = Annotated[Path, typer.Argument(help="A kernel folder, as kit kernel build writes it.")]
ScoreTimeout = Annotated[str, typer.Option(help="How long to wait for the score: 4h, 10m, 30s.")]
Resend = Annotated[bool, typer.Option(
    "--resend", help="What was sent last got no answer, and you have seen on Kaggle's page that it "
    "is not there.")]
KERNEL = Path("kernel")


@kernel.command()
def build(
    out: Annotated[Path, typer.Option(help="The folder to write.")] = KERNEL,
    user: Annotated[str | None, typer.Option(help="Your Kaggle user name.")] = None,
    slug: Annotated[str | None, typer.Option(help="Of the kernel; else <competition>-kit.")] = None,
    kind: Annotated[str, typer.Option(help="script or notebook.")] = "script",
    mode: Annotated[str, typer.Option(
        help="train there, or predict with the weights of a run.")] = "train",
    accelerator: Annotated[str, typer.Option(help="t4x2, tpu or none.")] = "t4x2",
    run: Annotated[str | None, typer.Option(
        help="Whose weights a predict kernel takes along: a run, or a submission that keeps "
        "them.")] = None,
    model: Annotated[str | None, typer.Option(
        help="What a train kernel trains: NAME,NAME or FILE.py:FUNCTION; else the setting for its "
        "accelerator (see kit models).")] = None,
    augment: Augment = None,
    folds: Annotated[int | None, typer.Option(
        help="Number of folds of a train kernel; else 5.")] = None,
    seeds: Annotated[int | None, typer.Option(
        help="Trainings of each fold of a train kernel.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the model's own number.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of a train kernel; else 0.")] = None,
    self_train: Annotated[int | None, typer.Option(
        help="Rounds of learning from the test rows, too, as far as the time allows; else the "
        "setting's, or none.")] = None,
    train_extra: TrainExtra = None,
    time_budget: Annotated[str | None, typer.Option(
        help="All is over by then: 8h; else 110m, without a GPU 520m.")] = None,
    docker_image: Annotated[str | None, typer.Option(
        help="Kaggle's image to run in: original, latest, or one by digest "
        "(gcr.io/...@sha256:...).")] = None,
    runs_dir: RunsDir = Path("runs"),
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """Write a folder that kaggle kernels push accepts.

    Example: kit kernel build --user me --kind notebook

    Files of your own that --model and --augment name are packed into it.
    """
    execute(actions_kaggle.build, **locals())


@kernel.command()
def rehearse(
    folder: Folder = KERNEL,
    hidden: Annotated[Path | None, typer.Option(help="A hidden test file of your own.")] = None,
    time_limit: Annotated[str, typer.Option(help="Kaggle's, as 2h or 90m.")] = "2h",
    mount: Annotated[list[str] | None, typer.Option(
        metavar="FOLDER", help="Stands for a dataset, model, kernel output or second competition "
        "that the kernel reads; REF=FOLDER where the folder's name does not say which. Can be "
        "given several times.")] = None,
    layout: Annotated[str, typer.Option(
        help="Where Kaggle mounts the inputs: new, as for kernels that are pushed today, or old."
    )] = "new",
    data_dir: DataDir = Path("data"),
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """Run the kernel here as Kaggle would, on a hidden test file.

    Example: kit kernel rehearse kernel --time-limit 10m
    """
    # Which competition it is for, the folder says, unless it was made by hand for one of the user's
    execute(actions_kaggle.rehearse, quiet, as_json, folder=folder, hidden=hidden,
            time_limit=time_limit, mount=mount, layout=layout, data_dir=data_dir,
            competition=competition)


@kernel.command()
def push(
    folder: Folder = KERNEL,
    wait: Annotated[bool, typer.Option("--wait", help="Follow this version to its end.")] = False,
    submit: Annotated[bool, typer.Option(
        "--submit", help="Hand its submission.csv in, once it has ended.")] = False,
    message: Message = "",
    score_timeout: ScoreTimeout = "4h",
    kernel_timeout: Annotated[str, typer.Option(
        help="How long to wait for the kernel's end.")] = "14h",
    resend: Resend = False,
    session_limit: Annotated[str | None, typer.Option(
        help="Kaggle ends the session after so long, as 3h; else after its own limit.")] = None,
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """Push, wait for that version, hand it in, score.

    Example: kit kernel push --wait --submit --message first
    """
    execute(actions_kaggle.push, **locals())


@kernel.command()
def status(
    folder: Folder = KERNEL,
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """Where the version that was pushed from this folder is, and what is left to spend.

    Example: kit kernel status --json
    """
    execute(actions_kaggle.status, **locals())


@kernel.command()
def logs(
    folder: Folder = KERNEL,
    follow: Annotated[bool, typer.Option(
        "--follow", help="Line by line, until this version has ended.")] = False,
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """The log of the version that was pushed.

    Example: kit kernel logs --follow
    """
    execute(actions_kaggle.logs, quiet, as_json, folder=folder, competition=competition,
            follow=follow, printed=not as_json)


@kernel.command()
def submit(
    folder: Folder = KERNEL, message: Message = "", score_timeout: ScoreTimeout = "4h",
    resend: Resend = False,
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """Hand in the version that was pushed.

    Example: kit kernel submit --message first
    """
    execute(actions_kaggle.submit, **locals())


LedgerFile = Annotated[Path, typer.Option("--ledger", help="The ledger's file.")]


@ledger.command()
def show(
    path: LedgerFile = LEDGER,
    plot: Annotated[Path | None, typer.Option(help="Also as a picture: a .svg file.")] = None,
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """The table, and how well the estimate has foretold the leaderboard."""
    execute(actions_kaggle.show_ledger, quiet, as_json, path=path, plot=plot)


@ledger.command()
def sync(
    path: LedgerFile = LEDGER,
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """Fetch the scores from Kaggle."""
    execute(actions_kaggle.sync_ledger, **locals())
