"""The command-line options that several commands share, and `execute`, which runs a command.

An option that was not given is None where RunConfig, a setting or a resumed run has the default.
"""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from kit.core.config import EXECUTORS, PRECISIONS, SPLITS


def _one_of(choices: Sequence[str]) -> str:
    """RunConfig's choices as an option's help."""
    return f"{', '.join(choices[:-1])} or {choices[-1]}."


# -- of every command ------------------------------------------------------------------------------

Competition = Annotated[str, typer.Option(
    help="Slug of the competition, or the address of its page; or a TOML file that describes it.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
AsJson = Annotated[bool, typer.Option("--json", help="Result and progress as JSON, for machines.")]

# -- files, folders and names ----------------------------------------------------------------------

DataDir = Annotated[Path, typer.Option(help="Where the data folders lie.")]
RunsDir = Annotated[Path, typer.Option(help="Where the run folders lie.")]
SubmissionsDir = Annotated[Path, typer.Option(help="Where submission folders lie.")]
RunName = Annotated[str, typer.Argument(help="Name of a run in runs/, or the path of its folder.")]
Trained = Annotated[str, typer.Argument(
    help="Name of a run, or of a submission that keeps its weights, or the path of its folder.")]
Scored = Annotated[str, typer.Argument(
    help="Name of a run or a submission, or the path of its folder.")]

Upload = Annotated[bool, typer.Option(
    "--upload", help="Hand it in, where the competition takes files.")]
KeepWeights = Annotated[bool, typer.Option(
    "--keep-weights", help="Put the folds' weights into the submission's folder, as float16, so "
    "that kit predict and kernels can use it without the run.")]
Message = Annotated[str, typer.Option(help="Beside the submission on Kaggle.")]

# -- of training -----------------------------------------------------------------------------------

Model = Annotated[str | None, typer.Option(
    help="One model, or several: NAME,NAME (see kit models), or FILE.py:FUNCTION of your own.")]
Augment = Annotated[str | None, typer.Option(
    help="An augmentation of your own for all models: FILE.py:NAME; else each model's.")]
Setting = Annotated[str | None, typer.Option(
    help="What to train by the time at hand (see kit models).")]
Folds = Annotated[int | None, typer.Option(help="Number of folds.", show_default="5")]
Split = Annotated[str | None, typer.Option(help=_one_of(SPLITS), show_default="auto")]
Seeds = Annotated[int | None, typer.Option(
    help="Trainings of each fold, from different seeds; else the setting's, or one.")]
Epochs = Annotated[int | None, typer.Option(
    help="Instead of the setting's or the model's own number.")]
BatchSize = Annotated[int | None, typer.Option(help="Instead of the model's own.")]
Precision = Annotated[str | None, typer.Option(help=_one_of(PRECISIONS), show_default="auto")]
Tta = Annotated[int | None, typer.Option(
    help="Test-time views of an image, 1 to 7; else the model's own.")]
Executor = Annotated[str | None, typer.Option(help=_one_of(EXECUTORS), show_default="auto")]
Threads = Annotated[int | None, typer.Option(help="CPU threads for each fold.")]
TimeBudget = Annotated[str | None, typer.Option(
    help="End training in time, with fewer epochs, then fewer rounds of self-training, then fewer "
    "folds: 110m, 2h, 90s.")]
Seed = Annotated[int | None, typer.Option(
    help="Of the split and the first training.", show_default="0")]
NewRun = Annotated[str | None, typer.Option(help="Name of the run; else model-date-time.")]
Resume = Annotated[bool, typer.Option(
    "--resume", help="Continue the run of that name, with its own options; without --run, the last "
    "one not finished.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the run of that name.")]
BreakLock = Annotated[bool, typer.Option(
    "--break-lock", help="Take the run over from a process on another machine that is gone.")]
Limit = Annotated[int | None, typer.Option(
    help="So many rows of each class, spread over the writers.")]
ClassPrior = Annotated[str | None, typer.Option(
    help="How often each class is in the test file: auto (what is known of it), none, or equal.",
    show_default="auto")]
SelfTrain = Annotated[int | None, typer.Option(
    help="Rounds of learning from the test rows, too, labelled as the ensemble guesses them.",
    show_default="the setting's, else 0")]
TrainExtra = Annotated[bool | None, typer.Option(
    "--train-extra/--no-train-extra", help="Learn from the competition's labelled file of other "
    "origin, too (Dig-MNIST.csv), which is then no test.", show_default="the setting's, else no")]
TensorBoard = Annotated[bool | None, typer.Option(
    "--tensorboard", help="Write TensorBoard logs into the run.")]

AgainstRun = Annotated[str | None, typer.Option(
    "--against", help="Train in the folds of this run or submission, and stop as soon as it is "
    "decided which of the two is better.")]
Difference = Annotated[float | None, typer.Option(
    help="With --against: the least difference in accuracy that matters.", show_default="0.001")]


def execute(command: Callable[..., Any], quiet: bool, as_json: bool, **options: Any) -> None:
    """Call a command's function, print the result, and exit with its code unless that is 0."""
    from kit.core import progress

    if "progress" in inspect.signature(command).parameters:
        options["progress"] = progress.choose_progress(quiet, as_json)
    result = command(**options)
    print(result.to_json() if as_json else result)
    if result.exit_code:
        raise typer.Exit(result.exit_code)
