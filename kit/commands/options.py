"""The options that commands share, each named, explained and given its default once.

`takes` gives a command function the groups of options that it wants, and makes of it the function that Typer shows.
"""

import functools
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

Opener = Callable[..., Any]  # (Common, fetch, submissions) → the Request of the options given


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
        from kit.core import progress

        return progress.choose_progress(self.quiet, self.as_json)

    def show(self, result: dict[str, Any], *lines: str) -> None:
        """The result: as JSON where asked for, else the lines."""
        if self.as_json:
            print(json.dumps(result, default=str, ensure_ascii=False))
        else:
            print("\n".join(lines))


def common(
    competition: Annotated[str, typer.Option(
        help="Slug of the competition, or the address of its page.")] = "kannada-mnist",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Result and progress as JSON, for machines.")] = False,
) -> Common:
    return Common(competition, quiet, as_json)


DataDir = Annotated[Path, typer.Option(help="Where the data folders lie.")]
RunsDir = Annotated[Path, typer.Option(help="Where the run folders lie.")]
SubmissionsDir = Annotated[Path, typer.Option(help="Where submission folders lie.")]
RunName = Annotated[str, typer.Argument(help="Name of a run in runs/, or the path of its folder.")]
Scored = Annotated[str, typer.Argument(help="Name of a run or a submission, or the path of its folder.")]


def training(
    data_dir: DataDir = Path("data"),
    model: Annotated[str | None, typer.Option(help="One model, or several: NAME,NAME (see kit models).")] = None,
    setting: Annotated[str | None, typer.Option(help="What to train by the time at hand (see kit models).")] = None,
    folds: Annotated[int | None, typer.Option(help="Number of folds.", show_default="5")] = None,
    split: Annotated[str | None, typer.Option(help="auto, stratified or writer.", show_default="auto")] = None,
    seeds: Annotated[int | None, typer.Option(
        help="Trainings of each fold, from different seeds; else the setting's, or one.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the model's own number.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Instead of the model's own.")] = None,
    precision: Annotated[str | None, typer.Option(
        help="auto, float32, bfloat16 or float16.", show_default="auto")] = None,
    tta: Annotated[int | None, typer.Option(help="Test-time views of an image, 1 to 7; else the model's own.")] = None,
    executor: Annotated[str | None, typer.Option(
        help="auto, local, processes or ray.", show_default="auto")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads for each fold.")] = None,
    time_budget: Annotated[str | None, typer.Option(
        help="End training in time, with fewer epochs, then with fewer folds: 110m, 2h, 90s.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the split and the first training.", show_default="0")] = None,
    run: Annotated[str | None, typer.Option(help="Name of the run; else model-date-time.")] = None,
    resume: Annotated[bool, typer.Option(
        "--resume", help="Continue the run of that name, with its own options; without --run, the last one not "
                         "finished.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the run of that name.")] = False,
    break_lock: Annotated[bool, typer.Option(
        "--break-lock", help="Take the run over from a process on another machine that is gone.")] = False,
    limit: Annotated[int | None, typer.Option(help="So many rows of each class, spread over the writers.")] = None,
    class_prior: Annotated[str | None, typer.Option(
        help="How often each class is in the test file: auto (what is known of it), none, or equal.",
        show_default="auto")] = None,
    self_train: Annotated[int | None, typer.Option(
        help="Rounds of learning from the test rows, too, labelled as the ensemble guesses them.",
        show_default="0")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard logs into the run.")] = False,
    runs_dir: RunsDir = Path("runs"),
) -> "Opener":
    # None is an option that was not given: RunConfig has the defaults, and a run that is resumed its own.
    given = dict(locals())
    given["n_folds"], given["n_seeds"] = given.pop("folds"), given.pop("seeds")
    given["tensorboard"] = tensorboard or None  # not asked for, which --resume takes for: as the run has it

    def open_with(asked: Common, fetch: bool = False, submissions: Path | None = None) -> Any:
        from kit.commands import request

        return request.open_request(asked.competition, asked.progress, fetch=fetch, submissions=submissions, **given)

    return open_with


def takes(*groups: Callable) -> Callable[[Callable], Callable]:
    """Give a command the options of `groups`; it gets what each group returns, by position, and its own by name.

    `~` in a path is the home folder: a shell leaves it as it is in `--data-dir=~/data`.
    """

    def decorate(command: Callable) -> Callable:
        own = list(inspect.signature(command).parameters.values())[len(groups):]
        shared = {group: list(inspect.signature(group).parameters.values()) for group in groups}
        parameters = [*own, *(parameter for group in groups[::-1] for parameter in shared[group])]
        parameters.sort(key=lambda p: p.default is not inspect.Parameter.empty)  # arguments without a default first

        def run(**given: Any) -> Any:
            from kit.commands.request import expanded

            given = {name: expanded(value) if isinstance(value, Path) else value for name, value in given.items()}
            made = [group(**{p.name: given.pop(p.name) for p in shared[group]}) for group in groups]
            return command(*made, **given)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters])
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate
