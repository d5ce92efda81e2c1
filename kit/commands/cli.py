"""The command line: each command declares its options and calls the function that notebooks call.

The functions are `kit.cv` and so on (`kit.commands.actions`), loaded when a command calls one, so
that `kit --help` stays quick. Results go to stdout, as text or with `--json` as one JSON object;
progress goes to stderr. Exit codes: 0 done; 1 the answer is no; 2 a KitError or a wrong option, as
two lines `error: …` and `fix: …`; 130 interrupted.
"""

import io
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import kit
from kit.commands import cli_kaggle
from kit.commands.options import (
    AgainstRun,
    AsJson,
    Augment,
    BatchSize,
    BreakLock,
    ClassPrior,
    Competition,
    DataDir,
    Difference,
    Epochs,
    Executor,
    Folds,
    Force,
    KeepWeights,
    Limit,
    Message,
    Model,
    NewRun,
    Precision,
    Quiet,
    Resume,
    RunName,
    RunsDir,
    Scored,
    Seed,
    Seeds,
    SelfTrain,
    Setting,
    Split,
    SubmissionsDir,
    TensorBoard,
    Threads,
    TimeBudget,
    Trained,
    TrainExtra,
    Tta,
    Upload,
    execute,
)
from kit.core import installation
from kit.core.config import option_name
from kit.core.errors import KitError
from kit.data.competition import KANNADA

app = typer.Typer(
    name="kit", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="From a Kaggle account to a submission you can trust: data, folds, CNNs, ensemble, "
    "report.")
runs = typer.Typer()
app.add_typer(runs, name="runs")
app.add_typer(cli_kaggle.kernel, name="kernel")
app.add_typer(cli_kaggle.ledger, name="ledger")

INTERRUPTED = 130
# Click's, or that of the copy of Click that newer Typers carry inside.
UsageError: Any = typer.BadParameter.__mro__[1]


def _show_version(asked: bool) -> None:
    if asked:
        print(installation.describe())
        raise typer.Exit


@app.callback()
def about(version: Annotated[bool, typer.Option(
    "--version", callback=_show_version, is_eager=True,
    help="The kit's version, and the git commit of a checkout.")] = False) -> None:
    """What stands before a command."""


# -- the main job ----------------------------------------------------------------------------------


@app.command()
def download(
    source: Annotated[str | None, typer.Option(
        "--from", help="kaggle, sample, keras, or a zip, folder or .npz you have.")] = None,
    data_dir: DataDir = Path("data"),
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is there.")] = False,
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """Get the competition's files, checked.

    Example: kit download --from Kannada-MNIST.zip

    Without --from: real data that is there, else Kaggle where credentials are found, else the drawn
    sample.
    """
    execute(kit.download, **locals())


@app.command()
def cv(
    data_dir: DataDir = Path("data"), model: Model = None, augment: Augment = None,
    setting: Setting = None,
    folds: Folds = None, split: Split = None, seeds: Seeds = None, epochs: Epochs = None,
    batch_size: BatchSize = None, precision: Precision = None, tta: Tta = None,
    executor: Executor = None, threads: Threads = None, time_budget: TimeBudget = None,
    seed: Seed = None, run: NewRun = None, resume: Resume = False, force: Force = False,
    break_lock: BreakLock = False, limit: Limit = None, class_prior: ClassPrior = None,
    self_train: SelfTrain = None, train_extra: TrainExtra = None,
    tensorboard: TensorBoard = None, runs_dir: RunsDir = Path("runs"),
    against: AgainstRun = None, difference: Difference = None,
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """Train k folds and report an honest score.

    Example: kit cv --model cnn --limit 200 --epochs 1

    With a model of your own: kit cv --model my_model.py:build

    To see whether a change helps, without the folds that are not needed for it: kit cv --model
    cnn_aug --against before
    """
    execute(kit.cv, **locals())


@app.command()
def submit(
    fetch: Annotated[bool, typer.Option(
        "--fetch", help="First get the data, as kit download does.")] = False,
    upload: Upload = False, message: Message = "", keep_weights: KeepWeights = False,
    submissions: SubmissionsDir = Path("submissions"),
    data_dir: DataDir = Path("data"), model: Model = None, augment: Augment = None,
    setting: Setting = None,
    folds: Folds = None, split: Split = None, seeds: Seeds = None, epochs: Epochs = None,
    batch_size: BatchSize = None, precision: Precision = None, tta: Tta = None,
    executor: Executor = None, threads: Threads = None, time_budget: TimeBudget = None,
    seed: Seed = None, run: NewRun = None, resume: Resume = False, force: Force = False,
    break_lock: BreakLock = False, limit: Limit = None, class_prior: ClassPrior = None,
    self_train: SelfTrain = None, train_extra: TrainExtra = None,
    tensorboard: TensorBoard = None, runs_dir: RunsDir = Path("runs"),
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """cv, then ensemble, submission.csv and report.

    Example: kit submit --model cnn_aug --run my-first

    With a model of your own beside it: kit submit --model cnn_aug,my_model.py:build
    """
    execute(kit.submit, **locals())


@app.command()
def blend(
    runs: Annotated[list[str], typer.Argument(
        help="Names of runs or submissions, or the paths of their folders.")],
    run: Annotated[str | None, typer.Option(
        help="Name of the blend; else blend-date-time.")] = None,
    weights: Annotated[str, typer.Option(
        help="equal, oof (fitted to the OOF probs), or a number for each run: 2,1,1.")] = "equal",
    class_prior: ClassPrior = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace the blend of that name.")] = False,
    upload: Upload = False, message: Message = "",
    data_dir: DataDir = Path("data"), runs_dir: RunsDir = Path("runs"),
    submissions: SubmissionsDir = Path("submissions"),
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """Several finished runs as one: OOF and test probs, submission and report.

    Example: kit blend first second --run blended

    Runs of other models, folds, seeds, machines and precisions, as long as the data is the same.
    """
    options = dict(locals())
    del options["competition"]  # that of the runs
    execute(kit.blend, **options)


@app.command()
def predict(
    run: Trained,
    test: Annotated[Path, typer.Option(help="A test file, of any number of rows.")],
    out: Annotated[Path, typer.Option(help="Labels to a .csv, probs to a .npz.")],
    runs_dir: RunsDir = Path("runs"),
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """Label another test file with a trained run, or with a submission that keeps its weights.

    Example: kit predict first --test new.csv --out labels.csv
    """
    execute(kit.predict, quiet, as_json, run=run, test=test, out=out, runs_dir=runs_dir)


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="A submission, also as .zip or .gz.")],
    test: Annotated[Path | None, typer.Option(
        help="The test file; else the one in the data folder.")] = None,
    data_dir: DataDir = Path("data"),
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """Is this submission acceptable, and if not, why?

    Example: kit validate submissions/first/submission.csv
    """
    execute(kit.validate, **locals())


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help="A submission.")],
    data_dir: DataDir = Path("data"),
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """How much of a submission is right.

    Example: kit score --competition digit-recognizer submissions/mnist/submission.csv

    Needs the labels of the test file: data from an .npz or from keras.datasets has them, a
    competition keeps its own.
    """
    execute(kit.score, **locals())


@app.command()
def report(
    run: RunName, data_dir: DataDir = Path("data"), runs_dir: RunsDir = Path("runs"),
    submissions: SubmissionsDir = Path("submissions"), keep_weights: KeepWeights = False,
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """Write a run's report.json and report.html again.

    Example: kit report first

    Those of its submission as well.
    """
    execute(kit.report, **locals())


@app.command()
def compare(
    run_a: Scored, run_b: Scored,
    out: Annotated[Path | None, typer.Option(help="Also as a page: a .html file.")] = None,
    data_dir: DataDir = Path("data"), runs_dir: RunsDir = Path("runs"),
    submissions: SubmissionsDir = Path("submissions"),
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """Is A better than B: difference, interval and p.

    Example: kit compare first second

    Over rows, over writers, and over the hardest eight writers.
    """
    options = dict(locals())
    del options["competition"]  # that of the runs
    execute(kit.compare, **options)


# -- runs ------------------------------------------------------------------------------------------


@runs.callback(invoke_without_command=True)
def list_runs(
    context: typer.Context,
    runs_dir: RunsDir = Path("runs"), submissions: SubmissionsDir = Path("submissions"),
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """The runs and submissions that are here, with scores and sizes.

    Example: kit runs

    Finished or not; those that this version of the kit cannot read, with the reason.
    """
    if context.invoked_subcommand is None:
        execute(kit.runs, quiet, as_json, runs_dir=runs_dir, submissions=submissions)
    elif given := [name for name in context.params
                   if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"]:
        option = "--json" if given[0] == "as_json" else option_name(given[0])
        raise KitError(
            f"{option} stands before {context.invoked_subcommand}, where it has no effect",
            f"write it at the end: kit runs {context.invoked_subcommand} … {option}")


@runs.command()
def remove(
    names: Annotated[list[str], typer.Argument(
        help="Runs by their names, submissions by their paths, as kit runs lists them.")],
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    runs_dir: RunsDir = Path("runs"), submissions: SubmissionsDir = Path("submissions"),
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """Remove runs, or submissions, after asking.

    Example: kit runs remove watched --yes

    A run that is training stays. A submission goes only by its path, submissions/NAME; its row of
    the ledger stays.
    """
    execute(kit.remove_runs, quiet, as_json, names=names, yes=yes, runs_dir=runs_dir,
            submissions=submissions)


# -- looking around --------------------------------------------------------------------------------


@app.command()
def show(
    row: Annotated[int, typer.Argument(help="A row of the training file, from 0.")],
    out: Annotated[Path | None, typer.Option(
        help="Also as a picture: a .png or .svg file.")] = None,
    data_dir: DataDir = Path("data"),
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """One digit of the training file, as a picture.

    Example: kit show 298
    """
    execute(kit.show, **locals())


@app.command()
def models(
    model: Annotated[str | None, typer.Option(
        help="FILE.py:FUNCTION of your own, also several: what they are, and whether they would "
        "train.")] = None,
    measure: Annotated[bool, typer.Option(
        "--measure", help="Time each model on this machine, some seconds each: how long five "
        "folds take, beside the accuracy. Needs no data.")] = False,
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """What can be trained, with size and cost.

    Example: kit models --measure
    """
    execute(kit.models, **locals())


@app.command()
def doctor(
    data_dir: DataDir = Path("data"),
    competition: Competition = KANNADA.slug, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """What this machine, or a kernel on Kaggle, has and what is missing.

    Example: kit doctor --json

    The exit code is 0 whatever is found: for scripts, a finding that must be mended has the state
    bad in --json.
    """
    execute(kit.doctor, **locals())


# -- entry -----------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its code; expected failures print two lines, no traceback."""
    # A path need not be UTF-8, and the terminal may not be able to show Kannada.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = int(app(arguments, prog_name="kit", standalone_mode=False) or 0)
        # Newer Typers turn Ctrl-C into this code, silently.
        return _interrupted(arguments) if code == INTERRUPTED else code
    except KitError as error:
        return _fail(error)
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # `kit` alone: the help is the answer
            print(error.format_message())
            return 0
        command = getattr(getattr(error, "ctx", None), "command_path", "kit")
        return _fail(KitError(error.format_message(), f"see {command} --help"))
    except OSError as error:  # of what a library writes for itself; the kit's own files say more
        from kit.core.os_errors import explain_os_error

        return _fail(explain_os_error(error, error.filename or "a file", "use"))
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(arguments)


def _interrupted(arguments: list[str] | None) -> int:
    trains = {"cv", "submit"} & set((sys.argv[1:] if arguments is None else arguments)[:1])
    print("interrupted; everything finished is kept: run the same command "
          f"{'with --resume' if trains else 'again'}", file=sys.stderr)
    return INTERRUPTED


def _fail(error: KitError) -> int:
    from kit.kaggle.credentials import redact

    print(redact(str(error)), file=sys.stderr)
    return error.exit_code


def _terminate(number: int, frame: Any) -> None:
    """SIGTERM ends a command as Ctrl-C does."""
    raise KeyboardInterrupt
