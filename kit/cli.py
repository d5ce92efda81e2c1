"""The command line: one command, one function of the kit that a notebook can call as well; no logic here.

In go options; out comes a few lines for a person on stdout, or one JSON object with `--json`. Progress goes to stderr.
Exit codes: 0 done; 1 the answer is no; 2 a KitError or a wrong option, as two lines `error: …` and `fix: …`;
130 interrupted. The kit's rooms are imported inside the commands, so that `kit --help` stays quick.
"""

import functools
import inspect
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from kit.errors import KitError

app = typer.Typer(name="kit", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
                  help="From a Kaggle account to a submission you can trust: data, folds, CNNs, ensemble, report.")
kernel = typer.Typer(no_args_is_help=True, help="Take the kit to Kaggle: build, rehearse, push, submit a kernel.")
ledger = typer.Typer(no_args_is_help=True, help="Every submission with its CV, estimate and leaderboard scores.")
app.add_typer(kernel, name="kernel")
app.add_typer(ledger, name="ledger")

UsageError = typer.BadParameter.__mro__[1]  # of Click, or of the copy of it that newer Typers carry inside


# -- options that commands share ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Common:
    """What every command takes."""

    slug: str
    quiet: bool
    as_json: bool

    @property
    def competition(self) -> Any:
        from kit.data import competition

        return competition.get(self.slug)

    @functools.cached_property
    def progress(self) -> Any:
        from kit import progress

        return progress.choose(self.quiet, self.as_json)

    def show(self, result: dict[str, Any], *lines: str) -> None:
        """The result: as JSON where asked for, else the lines."""
        if self.as_json:
            print(json.dumps(result, default=str, ensure_ascii=False))
        else:
            print("\n".join(lines))


def _common(
    competition: Annotated[str, typer.Option(help="Slug of the competition.")] = "kannada-mnist",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Result and progress as JSON, for machines.")] = False,
) -> Common:
    return Common(competition, quiet, as_json)


DataDir = Annotated[Path, typer.Option(help="Where the data folders lie.")]
RunName = Annotated[str, typer.Argument(help="Name of a run in runs/, or the path of its folder.")]


def _training(
    data_dir: DataDir = Path("data"),
    model: Annotated[str | None, typer.Option(help="One model, or several: NAME,NAME (see kit models).")] = None,
    folds: Annotated[int, typer.Option(help="Number of folds.")] = 5,
    split: Annotated[str, typer.Option(help="auto, stratified or writer.")] = "auto",
    seeds: Annotated[int, typer.Option(help="Trainings of each fold, from different seeds.")] = 1,
    epochs: Annotated[int | None, typer.Option(help="Instead of the model's own number.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Instead of the model's own.")] = None,
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    tta: Annotated[int | None, typer.Option(help="Test-time views of each image.")] = None,
    executor: Annotated[str, typer.Option(help="auto, local, processes or ray.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads for each fold.")] = None,
    time_budget: Annotated[str | None, typer.Option(help="End training in time: 110m, 2h, 90s.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split and the first training.")] = 0,
    run: Annotated[str | None, typer.Option(help="Name of the run; else model-date-time.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run of that name.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the run of that name.")] = False,
    limit: Annotated[int | None, typer.Option(help="So many rows of each class, spread over the writers.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard logs into the run.")] = False,
    runs_dir: Annotated[Path, typer.Option(help="Where the run folders lie.")] = Path("runs"),
) -> Callable[..., Any]:
    given = dict(locals())
    given["n_folds"], given["n_seeds"] = given.pop("folds"), given.pop("seeds")

    def open_with(common: Common, fetch: bool = False) -> Any:
        from kit import request

        return request.open_request(common.competition, common.progress, fetch=fetch, **given)

    return open_with


def takes(*groups: Callable) -> Callable[[Callable], Callable]:
    """Give a command the options of `groups`; it gets what each group returns, by position, and its own by name."""

    def decorate(command: Callable) -> Callable:
        own = list(inspect.signature(command).parameters.values())[len(groups):]
        shared = {group: list(inspect.signature(group).parameters.values()) for group in groups}
        parameters = [*own, *(parameter for group in groups[::-1] for parameter in shared[group])]
        parameters.sort(key=lambda p: p.default is not inspect.Parameter.empty)  # arguments without a default first

        def run(**given: Any) -> Any:
            made = [group(**{p.name: given.pop(p.name) for p in shared[group]}) for group in groups]
            return command(*made, **given)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters])
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


# -- the main job ---------------------------------------------------------------------------------------------------


@app.command()
@takes(_common)
def download(
    common: Common,
    source: Annotated[str | None, typer.Option("--from", help="kaggle, sample, or a zip or folder you have.")] = None,
    data_dir: DataDir = Path("data"),
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is there.")] = False,
) -> None:
    """Get the competition's files, checked: kit download --from Kannada-MNIST.zip

    Without --from: real data that is there, else Kaggle where credentials are found, else the drawn sample.
    """
    from kit.data import source as sources

    data = sources.download(common.competition, source, data_dir, force, common.progress)
    common.show({"path": data.path, "source": data.source, "is_sample": data.is_sample},
                f"{data.path}: {'drawn sample' if data.is_sample else 'real data'}, from {data.source}")


@app.command()
@takes(_common, _training)
def cv(common: Common, training: Callable[..., Any]) -> None:
    """Train k folds and report an honest score: kit cv --model cnn --limit 200 --epochs 1"""
    from kit import pipeline

    wish = training(common)
    pipeline.cv(wish.config, wish.data, wish.run, common.progress, wish.resume)
    _show_report(common, wish.run.path)


@app.command()
@takes(_common, _training)
def submit(
    common: Common,
    training: Callable[..., Any],
    fetch: Annotated[bool, typer.Option("--fetch", help="First get the data, as kit download does.")] = False,
    upload: Annotated[bool, typer.Option("--upload", help="Hand it in, where the competition takes files.")] = False,
    message: Annotated[str, typer.Option(help="Beside the submission on Kaggle.")] = "",
    submissions: Annotated[Path, typer.Option(help="Where submission folders go.")] = Path("submissions"),
) -> None:
    """cv, then ensemble, submission.csv and report: kit submit --model cnn_aug --run first"""
    from kit import pipeline
    from kit.delivery import push

    if upload:
        push.check_takes_files(common.competition)
    wish = training(common, fetch)
    folder = pipeline.submit(wish.config, wish.data, wish.run, submissions, common.progress, wish.resume)
    if upload:
        push.upload(folder / "submission.csv", common.competition, message)
    _show_report(common, folder, f"submission: {folder / 'submission.csv'}")


@app.command()
@takes(_common)
def predict(
    common: Common,
    run: RunName,
    test: Annotated[Path, typer.Option(help="A test file, of any number of rows.")],
    out: Annotated[Path, typer.Option(help="Labels to a .csv, probs to a .npz.")],
    runs_dir: Annotated[Path, typer.Option(help="Where the run folders lie.")] = Path("runs"),
) -> None:
    """Label another test file with a trained run: kit predict first --test new.csv --out labels.csv"""
    from kit import request
    from kit.ensembling import infer

    rows = infer.predict_file(request.existing_run(run, runs_dir), test, out, common.progress)
    common.show({"rows": rows, "out": out}, f"{out}: {rows} rows")


@app.command()
@takes(_common)
def validate(
    common: Common,
    file: Annotated[Path, typer.Argument(help="A submission.")],
    test: Annotated[Path | None, typer.Option(help="The test file; else the one in the data folder.")] = None,
    data_dir: DataDir = Path("data"),
) -> None:
    """Is this submission acceptable, and if not, why: kit validate submissions/first/submission.csv"""
    from kit import request
    from kit.ensembling import submission

    ids = request.test_ids(common.competition, test, data_dir)
    problems = submission.validate(file, common.competition, ids)
    common.show({"ok": not problems, "problems": problems}, *(problems or [f"{file}: acceptable"]))
    raise typer.Exit(bool(problems))


@app.command()
@takes(_common)
def report(common: Common, run: RunName, data_dir: DataDir = Path("data"),
           runs_dir: Annotated[Path, typer.Option(help="Where the run folders lie.")] = Path("runs")) -> None:
    """Write report.json and report.html of a run again: kit report first"""
    from kit import pipeline, request

    folder = request.existing_run(run, runs_dir)
    pipeline.report(folder, request.data_of(folder, common.competition, data_dir))
    _show_report(common, folder.path)


@app.command()
@takes(_common)
def compare(
    common: Common, run_a: RunName, run_b: RunName,
    out: Annotated[Path | None, typer.Option(help="Also as a page: a .html file.")] = None,
    data_dir: DataDir = Path("data"),
) -> None:
    """Is A better than B: difference, interval and p, over rows and over writers: kit compare first second"""
    from kit import request
    from kit.reporting import compare as comparing

    a, b = request.scored_folder(run_a), request.scored_folder(run_b)
    result = comparing.compare(a, b)
    if out is not None:
        request.write_page(out, comparing.render_compare(result, request.pixels(common.competition, data_dir)))
    common.show(result, *comparing.lines(result))


def _show_report(common: Common, folder: Path, *lines: str) -> None:
    from kit import storage
    from kit.reporting.verdict import verdict

    numbers = storage.read_json(folder / "report.json")
    said = verdict(numbers)
    common.show(numbers, *said["banners"], *said["points"], *lines, f"report: {folder / 'report.html'}")


# -- looking around -------------------------------------------------------------------------------------------------


@app.command()
@takes(_common)
def show(common: Common, row: Annotated[int, typer.Argument(help="A row of the training file, from 0.")],
         data_dir: DataDir = Path("data")) -> None:
    """One digit of the training file, as a picture: kit show 298"""
    from kit.reporting import tutorial

    label, picture = tutorial.digit(row, common.competition, data_dir)
    common.show({"row": row, "label": label}, picture, f"row {row}: {label}")


@app.command()
@takes(_common)
def models(common: Common) -> None:
    """What can be trained, with size and cost: kit models"""
    from kit.training import models as registry

    rows = registry.table(common.competition)
    common.show({"models": rows}, *registry.lines(rows))


@app.command()
@takes(_common)
def doctor(common: Common, data_dir: DataDir = Path("data")) -> None:
    """What this machine has, and what is missing: kit doctor"""
    from kit import doctor as examination

    findings = examination.examine(common.competition, data_dir)
    common.show({"findings": [finding.to_dict() for finding in findings]}, *map(str, findings))


# -- entry ----------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its code; expected failures are two lines, never a traceback."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return int(app(arguments, prog_name="kit", standalone_mode=False) or 0)
    except KitError as error:
        return _fail(error)
    except UsageError as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "kit")
        return _fail(KitError(error.format_message(), f"see {command} --help"))  # type: ignore[attr-defined]
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted; everything finished is kept: run the same command with --resume", file=sys.stderr)
        return 130


def _fail(error: KitError) -> int:
    from kit.credentials import redact

    print(redact(str(error)), file=sys.stderr)
    return error.exit_code


def _terminate(number: int, frame: Any) -> None:
    """SIGTERM ends a command as Ctrl-C does."""
    raise KeyboardInterrupt
