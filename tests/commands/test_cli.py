"""The command line declares the options and defaults of the functions that a notebook calls."""

import dataclasses
import inspect
import typing
from pathlib import Path

import pytest

import kit
from kit.commands import actions_kaggle, cli, cli_kaggle
from kit.commands.command import Result
from kit.commands.options import execute
from kit.commands.request import TrainingOptions
from kit.core.config import OPTIONS, RunConfig

COMMANDS = {
    **{command.callback: getattr(kit, command.callback.__name__)
       for command in cli.app.registered_commands},
    cli.list_runs: kit.runs, cli.remove: kit.remove_runs,
    **{command.callback: getattr(actions_kaggle, command.callback.__name__)
       for command in cli_kaggle.kernel.registered_commands},
    **{command.callback: getattr(actions_kaggle, f"{command.callback.__name__}_ledger")
       for command in cli_kaggle.ledger.registered_commands}}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: f"{each.__module__}.{each.__name__}")
def test_a_command_has_the_options_of_its_function(command):
    function = COMMANDS[command]
    taken, hints = dict(inspect.signature(function).parameters), typing.get_type_hints(function)
    if "options" in taken:
        taken |= inspect.signature(TrainingOptions).parameters
        hints |= {field.name: field.type for field in dataclasses.fields(TrainingOptions)}
    for name, option in inspect.signature(command).parameters.items():
        if name in ("context", "quiet", "as_json") or (name == "competition" and name not in taken):
            continue
        default, own = taken[name].default, option.default
        assert (Path(default) if isinstance(own, Path) else default) == own, name
        if Path in (kind := typing.get_args(option.annotation)[0], *typing.get_args(kind)):
            assert Path in typing.get_args(hints[name]), f"no ~ in {name}"


def test_every_training_option_is_on_the_command_line_of_both_commands():
    options = {field.name for field in dataclasses.fields(TrainingOptions)}
    for command in (cli.cv, cli.submit):
        assert options <= set(inspect.signature(command).parameters)


def test_every_field_of_a_run_s_config_can_be_given():
    """`TrainingOptions.given` looks its fields up by name, and would miss one without a word."""
    options = {field.name for field in dataclasses.fields(TrainingOptions)}
    fields = {OPTIONS.get(field.name, field.name) for field in dataclasses.fields(RunConfig)}
    # The first is given to `open_request` by itself; the other is what --model and --augment name.
    assert fields - options == {"competition", "code"}


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_a_result_is_printed_and_decides_the_exit_code(ok, code, capsys, monkeypatch):
    result = Result({"a": Path("b")}, ["a line"], ok=ok, banners=["Beware"])
    monkeypatch.setattr(kit, "models", lambda **options: result)
    assert cli.run(["models"]) == code and capsys.readouterr().out == "Beware\na line\n"
    assert cli.run(["models", "--json"]) == code and capsys.readouterr().out == '{"a": "b"}\n'


def test_progress_is_what_the_command_line_chose(capsys):
    def report(progress=None):
        progress.say("hello")
        return Result({}, ["done"])

    execute(report, quiet=True, as_json=False)
    assert capsys.readouterr() == ("done\n", "")
    execute(report, quiet=False, as_json=True)
    assert capsys.readouterr() == ("{}\n", '{"event": "say", "text": "hello"}\n')
