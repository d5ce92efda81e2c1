"""The command line: one command, one function of the kit that a notebook can call as well; no logic here.

A command prints a few lines for a person on stdout, or one JSON object with `--json`. Progress goes to stderr.
Exit codes: 0 done; 1 the answer is no; 2 a KitError or a wrong option, as two lines `error: …` and `fix: …`;
130 interrupted. The kit's rooms are imported inside the commands, so that `kit --help` stays quick.
"""

import io
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kit.commands import cli_kaggle, options
from kit.commands.options import Common, DataDir, RunName, RunsDir, Scored, SubmissionsDir, takes
from kit.core.errors import KitError
from kit.data import competition as competitions

app = typer.Typer(name="kit", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
                  help="From a Kaggle account to a submission you can trust: data, folds, CNNs, ensemble, report.")
app.add_typer(cli_kaggle.kernel, name="kernel")
app.add_typer(cli_kaggle.ledger, name="ledger")

INTERRUPTED = 130
UsageError: Any = typer.BadParameter.__mro__[1]  # of Click, or of the copy of it that newer Typers carry inside


# -- the main job ---------------------------------------------------------------------------------------------------


@app.command()
@takes(options.common)
def download(
    common: Common,
    source: Annotated[str | None, typer.Option(
        "--from", help="kaggle, sample, keras, or a zip, folder or .npz you have.")] = None,
    data_dir: DataDir = Path("data"),
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is there.")] = False,
) -> None:
    """Get the competition's files, checked.

    Example: kit download --from Kannada-MNIST.zip

    Without --from: real data that is there, else Kaggle where credentials are found, else the drawn sample.
    """
    from kit.commands import request
    from kit.data import source as sources

    given = request.expanded(source) if source else None
    data = sources.download(common.competition, given, data_dir, force, common.progress)
    common.show({"path": data.path, "source": data.source, "is_sample": data.is_sample},
                f"{data.path}: {'drawn sample' if data.is_sample else f'real data, from {data.source}'}")


@app.command()
@takes(options.common, options.training)
def cv(common: Common, training: options.Opener) -> None:
    """Train k folds and report an honest score.

    Example: kit cv --model cnn --limit 200 --epochs 1
    """
    _show_report(common, training(common).cv(common.progress))


@app.command()
@takes(options.common, options.training)
def submit(
    common: Common,
    training: options.Opener,
    fetch: Annotated[bool, typer.Option("--fetch", help="First get the data, as kit download does.")] = False,
    upload: Annotated[bool, typer.Option("--upload", help="Hand it in, where the competition takes files.")] = False,
    message: Annotated[str, typer.Option(help="Beside the submission on Kaggle.")] = "",
    submissions: SubmissionsDir = Path("submissions"),
) -> None:
    """cv, then ensemble, submission.csv and report.

    Example: kit submit --model cnn_aug --run my-first
    """
    folder, said = training(common, fetch, submissions).submit(submissions, upload, message, common.progress)
    _show_report(common, folder, *said)


@app.command()
@takes(options.common)
def predict(
    common: Common,
    run: RunName,
    test: Annotated[Path, typer.Option(help="A test file, of any number of rows.")],
    out: Annotated[Path, typer.Option(help="Labels to a .csv, probs to a .npz.")],
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Label another test file with a trained run.

    Example: kit predict first --test new.csv --out labels.csv
    """
    from kit.commands import request
    from kit.ensembling import predict as infer

    rows = infer.predict_file(request.existing_run(run, runs_dir), test, out, common.progress)
    common.show({"rows": rows, "out": out}, f"{out}: {rows} rows")


@app.command()
@takes(options.common)
def validate(
    common: Common,
    file: Annotated[Path, typer.Argument(help="A submission, also as .zip or .gz.")],
    test: Annotated[Path | None, typer.Option(help="The test file; else the one in the data folder.")] = None,
    data_dir: DataDir = Path("data"),
) -> None:
    """Is this submission acceptable, and if not, why?

    Example: kit validate submissions/first/submission.csv
    """
    from kit.commands import request
    from kit.ensembling import submission

    ids = request.test_ids(common.competition, test, data_dir)
    found = submission.judge(file, common.competition, ids)
    common.show({"ok": not found.problems, **found._asdict()}, *found.lines(file))
    raise typer.Exit(bool(found.problems))


@app.command()
@takes(options.common)
def score(
    common: Common,
    file: Annotated[Path, typer.Argument(help="A submission.")],
    data_dir: DataDir = Path("data"),
) -> None:
    """How much of a submission is right.

    Example: kit score --competition digit-recognizer submissions/mnist/submission.csv

    Needs the labels of the test file: data from an .npz or from keras.datasets has them, a competition keeps its own.
    """
    from kit.data import source
    from kit.reporting import tutorial

    result = tutorial.score(file, source.find_data(common.competition, data_dir))
    common.show(result, *tutorial.score_lines(result, common.competition))


@app.command()
@takes(options.common)
def report(common: Common, run: RunName, data_dir: DataDir = Path("data"), runs_dir: RunsDir = Path("runs"),
           submissions: SubmissionsDir = Path("submissions")) -> None:
    """Write a run's report.json and report.html again.

    Example: kit report first

    Those of its submission as well.
    """
    from kit import pipeline
    from kit.commands import request

    folder = request.existing_run(run, runs_dir)
    pipeline.report(folder, request.data_of(folder, data_dir), submissions)
    _show_report(common, folder.path)


@app.command()
@takes(options.common)
def compare(
    common: Common, run_a: Scored, run_b: Scored,
    out: Annotated[Path | None, typer.Option(help="Also as a page: a .html file.")] = None,
    data_dir: DataDir = Path("data"),
) -> None:
    """Is A better than B: difference, interval and p.

    Example: kit compare first second

    Over rows, over writers, and over the hardest eight writers.
    """
    from kit.commands import request
    from kit.core import storage
    from kit.reporting import compare as comparing

    if out is not None and out.suffix != ".html":
        raise KitError(f"--out {out} is no .html", "name a file that ends in .html")
    a, b = request.scored_folder(run_a), request.scored_folder(run_b)
    result = comparing.compare(a, b)
    if out is not None:
        table = request.training_table(competitions.get(result["competition"]), data_dir)
        page = comparing.render_compare(result, table)
        storage.write_text(out, page, record=False)
    common.show(result, *comparing.lines(result))


def _show_report(common: Common, folder: Path, *lines: str) -> None:
    from kit.core import storage

    numbers = storage.read_json(folder / "report.json", "verdict")
    said = numbers["verdict"]
    common.show(numbers, *said["banners"], *said["points"], *lines, f"report: {folder / 'report.html'}")


# -- looking around -------------------------------------------------------------------------------------------------


@app.command()
@takes(options.common)
def show(
    common: Common,
    row: Annotated[int, typer.Argument(help="A row of the training file, from 0.")],
    out: Annotated[Path | None, typer.Option(help="Also as a picture: a .png or .svg file.")] = None,
    data_dir: DataDir = Path("data"),
) -> None:
    """One digit of the training file, as a picture.

    Example: kit show 298
    """
    from kit.data import source
    from kit.reporting import tutorial

    image, label = tutorial.read_digit(row, source.find_data(common.competition, data_dir))
    if out is not None:
        tutorial.write_digit(image, tutorial.class_names(common.competition)[label], f"row {row}", out)
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    common.show({"row": row, "label": label}, tutorial.half_blocks(image, colours), f"row {row}: {label}")


@app.command()
@takes(options.common)
def models(common: Common) -> None:
    """What can be trained, with size and cost."""
    from kit.training import models as registry
    from kit.training import settings

    rows = registry.table()
    common.show({"models": rows, "settings": settings.table()}, *registry.lines(rows), "", *settings.lines())


@app.command()
@takes(options.common)
def doctor(common: Common, data_dir: DataDir = Path("data")) -> None:
    """What this machine has, and what is missing."""
    from kit.commands import doctor as examination

    findings = examination.examine(common.competition, data_dir)
    common.show({"findings": [finding.to_dict() for finding in findings]}, *map(str, findings))


# -- entry ----------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its code; expected failures are two lines, never a traceback."""
    for stream in (sys.stdout, sys.stderr):  # a path need not be UTF-8, nor the terminal able to show Kannada
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
        from kit.core.storage import explain_os_error

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
