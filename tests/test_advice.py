"""Advice is taken: what a KitError tells the user to type is something that the kit then accepts."""

import ast
import configparser
import re
import shlex

import pytest

from kit import pipeline
from kit.commands import cli
from kit.data import competition
from kit.data import folds as folds_module
from tests.data.tiny import TINY, write_folder
from tests.test_docs import ROOT, TYPER_APP, options_of, walk

# -- in the code ----------------------------------------------------------------------------------------------------


def words_of(node: ast.expr) -> str:
    """A literal's or an f-string's text, with … for what is filled in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(words_of(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return " ".join(words_of(part) for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr))


def advice() -> list[tuple[str, str]]:
    """(where, text) of the second argument of every KitError in the kit."""
    found = []
    for path in sorted((ROOT / "kit").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "KitError" and len(node.args) > 1:
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", words_of(node.args[1])))
    return found


def every_option(command=TYPER_APP) -> set[str]:
    return options_of(command).union(*map(every_option, getattr(command, "commands", {}).values()))


def test_every_option_that_advice_names_is_one_of_the_command_it_names():
    texts, known = advice(), every_option()
    assert len(texts) > 150
    wrong = []
    for where, text in texts:
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text):
            if option not in known:
                wrong.append(f"{where}: {option} in {text!r}")
        for typed in re.findall(r"\bkit ([a-z][^;,:()]*)", text):
            command, left = walk(typed.split())
            if command is not TYPER_APP:
                taken = options_of(command)
                wrong += [f"{where}: {word} in {text!r}" for word in left
                          if re.fullmatch("--[a-z-]+", word) and word not in taken]
    # The options of other programs are theirs
    other_programs = ("pip install", "kaggle ", "chmod", "git ", "jupyter ", "ray start", "wsl ")
    assert [line for line in wrong if not any(program in line for program in other_programs)] == []


def test_every_extra_that_advice_names_is_one_of_setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", "utf-8")
    calls = [node for path in (ROOT / "kit").rglob("*.py") for node in ast.walk(ast.parse(path.read_text("utf-8")))
             if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "how_to_install"]
    named = {call.args[0].value for call in calls if call.args}
    assert named == {"ray", "rehearse", "tensorboard"} & set(parser["options.extras_require"])


# -- as it is said --------------------------------------------------------------------------------------------------


@pytest.fixture
def kit(tmp_path, monkeypatch, capsys):
    """`kit cv` on the tiny competition, up to its folds; its code, and the two lines that it said."""
    monkeypatch.setitem(competition.COMPETITIONS, "tiny", TINY)
    write_folder(tmp_path / "data" / "tiny")
    monkeypatch.chdir(tmp_path)

    def cv(config, data, run, progress, resume, force=False, time_target=None, against=None):
        folds_module.make_folds(data.train().labels, TINY, config.n_folds, config.split, config.seed, config.limit)
        raise SystemExit(0)

    monkeypatch.setattr(pipeline, "cv", cv)

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = cli.run(["cv", "--competition", "tiny", "--quiet", *arguments])
        except SystemExit as end:
            code = int(end.code)
        err = capsys.readouterr().err
        error, fix = ((re.findall(rf"^{kind}: (.*)$", err, re.MULTILINE) or [""])[-1] for kind in ("error", "fix"))
        return code, error, fix

    return run


def advised(option: str, fix: str) -> list[list[str]]:
    """The words of each way that a fix names: `--folds 10`, `one of: a, b`, `like 110m, 2h or 90s`."""
    if one_of := re.search(r"(?:one of|choose from): ([^(;]+)", fix):
        return [[option, value] for value in re.split(r",\s*", one_of[1].strip())]
    if durations := re.findall(r"\b[0-9]+[smh]\b", fix):
        return [[option, value] for value in durations]
    return [shlex.split(words) for words in re.findall(r"--[a-z-]+ \w(?:[\w,.-]*\w)?", fix)]


@pytest.mark.parametrize("bad", [
    ["--folds", "1"], ["--folds", "0"], ["--folds", "-3"], ["--folds", "11"], ["--folds", "21"], ["--folds", "500"],
    ["--folds", "21", "--split", "stratified"], ["--limit", "1"], ["--limit", "3"], ["--limit", "0"], ["--limit", "-2"],
    ["--limit", "1", "--split", "stratified"], ["--epochs", "0"], ["--epochs", "99999"], ["--seeds", "0"],
    ["--seeds", "101"], ["--batch-size", "0"], ["--tta", "0"], ["--tta", "8"], ["--threads", "0"], ["--seed", "-1"],
    ["--seed", "99999999999"], ["--split", "random"], ["--precision", "int8"], ["--executor", "dask"],
    ["--class-prior", "maybe"], ["--self-train", "99"], ["--setting", "fast"], ["--model", "resnet"],
    ["--model", "cnn,cnn"], ["--time-budget", "soon"], ["--time-budget", "99999999h"],
    ["--competition", "kanada-mnist"],
], ids=" ".join)
def test_what_is_advised_is_accepted(kit, bad):
    given = [*([] if "--model" in bad or "--setting" in bad else ["--model", "mlp"]), *bad]
    code, error, fix = kit(*given)
    assert code == 2 and error and fix
    if meant := re.fullmatch(r"did you mean (.*)\?", fix):
        assert competition.get(meant[1])
        return
    ways = advised(bad[0], fix)
    assert ways, fix
    for way in ways:
        replaced = list(given)
        for option, value in zip(way[::2], way[1::2], strict=True):
            if option in replaced:
                at = replaced.index(option)
                replaced[at:at + 2] = []
            replaced += [option, value]
        if "harder" in way:  # how hard the writers of the tiny file are to read is not known
            assert "use --split writer" in kit(*replaced)[2]
            continue
        assert kit(*replaced)[0] == 0, (fix, way, kit(*replaced))
