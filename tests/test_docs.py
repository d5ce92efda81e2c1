"""What the README and docs/ say is so: commands run, links lead somewhere, named files and tests are there.

Commands in ```sh blocks are run as they stand, on a sample and with models of one layer (see `NOT_RUN` for those that
are only parsed, and why). Those in running text are parsed as far as they go (`kit kernel` is a command, and each
option beside it is one of its own).
"""

import ast
import configparser
import dataclasses
import functools
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import typer

from kit.commands import cli
from kit.commands.cli import UsageError, app
from kit.core.config import RunConfig
from kit.core.errors import KitError
from kit.training import models, own_code

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TYPER_APP = typer.main.get_command(app)
COMPLETION = {"--install-completion", "--show-completion", "--help"}

KAGGLE = "needs Kaggle; tests/kernel/ runs it against a stand-in"
NOT_RUN = {
    "bash scripts/test.sh": "runs the tests, of which this is one",
    "bash scripts/test.sh --all": "runs the tests, of which this is one",
    "bash scripts/test.sh -k folds": "runs the tests, of which this is one",
    "bash scripts/test.sh --newest": "runs the tests, of which this is one",
    "bash scripts/test.sh --lowest": "runs the tests, of which this is one",
    "bash scripts/test.sh --kaggle-image": "runs tests, after minutes of installation",
    "bash scripts/setup.sh ray": "needs a network; tests/test_setup.py looks at what it asks pip for",
    "bash scripts/setup.sh rehearse": "the same",
    "bash scripts/setup.sh tensorboard": "the same",
    "kit --install-completion": "asks which shell it was typed into; a test below looks at what it would install",
    "kit models --measure": "times all models for a minute; tests/training/test_model_pace.py runs it",
    "kit cv --model cnn_aug --executor ray": "needs a cluster; tests/training/test_cluster.py starts one",
    "kit submit --model cnn_aug --executor ray": "needs a cluster; tests/training/test_cluster.py starts one",
    "kit cv --model cnn_aug --executor processes --threads 1": "tests/training/test_executors.py runs it",
    "kit kernel rehearse": "a minute, and a kernel that trains whole models; tests/rehearsal/test_rehearse.py runs it",
    "kit kernel rehearse kernel --time-limit 10m": "the same",
    "kit kernel rehearse shapes-kernel --time-limit 10m": "the same; tests/end_to_end/test_competitions.py, too",
    "kit kernel push": KAGGLE,
    "kit kernel push --wait --submit --message first": KAGGLE,
    "kit kernel push --wait --submit --message 'cnn_aug, five folds'": KAGGLE,
    "kit kernel status": KAGGLE,
    "kit kernel status --json": KAGGLE,
    "kit kernel logs --follow": KAGGLE,
    "kit kernel submit --message first": KAGGLE,
    "kit ledger sync": KAGGLE,
    "kit submit --competition digit-recognizer --model mlp --upload --message mlp": KAGGLE,
}
OTHER_PROGRAMS = {"source", "tensorboard", "ray", "git", "uv", ".venv/bin/python", ".venv-newest/bin/python",
                  "python"}  # none of them ours
READING_ORDER = ["README.md", "docs/quick-start.md", "docs/first-submission.md", "docs/improve.md",
                 "docs/blend.md", "docs/competitions.md", "docs/own-model.md"]
QUICKLY = ("--limit", "8", "--folds", "2", "--epochs", "1", "--executor", "local", "--quiet")  # the last of two counts


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def programs(text: str) -> list[list[str]]:
    """The words of every command in the ```sh blocks, without what is set for it."""
    found = []
    for block in blocks(text, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\||;", re.sub(r"(^|\s)#.*", "", line)):
                words = shlex.split(part)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words.pop(0)
                found += [words] if words else []
    return found


def shell_commands(text: str) -> list[list[str]]:
    """The words of every `kit …` and `bash …` in the ```sh blocks."""
    return [[Path(words[0]).name, *words[1:]] for words in programs(text) if Path(words[0]).name in ("kit", "bash")]


def mentions(text: str) -> list[str]:
    """The `kit …` and `bash scripts/…` between single backticks in running text."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`((?:kit|bash scripts/)[^`\n]*)`", prose)


def walk(words: list[str]) -> tuple[object, list[str]]:
    """The command that `words` name, and the words that are left for it."""
    command = TYPER_APP
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def parse(words: list[str]) -> None:
    """Parse a whole command line as the app would, without running it; raises UsageError or KitError."""
    command, left = walk(words)
    if getattr(command, "commands", None) and left and not left[0].startswith("-"):
        raise AssertionError(f"kit has no command {' '.join(words)!r}")
    if not set(left) & COMPLETION:
        given = command.make_context(" ".join(words), list(left)).params
        if "seeds" in given:  # it trains: what is asked for must be possible, too
            given |= {"models": tuple(map(check_model, (given["model"] or "cnn").split(","))),
                      "augment": given["augment"] and check_model(given["augment"]),
                      "n_folds": given["folds"], "n_seeds": given["seeds"]}
            fields = {field.name for field in dataclasses.fields(RunConfig)} - {"time_budget"}  # a duration in words
            RunConfig(**{name: value for name, value in given.items() if name in fields and value is not None})


def check_model(name: str) -> str:
    """A model that there is, or something of the file on the page that shows one of one's own."""
    if not own_code.is_own(name):
        return models.get(name).name
    file, _, wanted = name.partition(":")
    assert f"def {wanted}(" in own_files()[file]
    return f"{Path(file).stem}-{wanted}"


def own_files() -> dict[str, str]:
    """The files that the pages tell to write: ```python blocks with the file's name on top."""
    found = [block for page in PAGES for block in blocks(page.read_text("utf-8"), "python")]
    return {named[1]: block for block in found if (named := re.match(r"# (\w+\.py)\n", block))}


def options_of(command: object) -> set[str]:
    given = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return given | COMPLETION


def tree(text: str) -> list[str]:
    """The paths that an indented tree names: a folder ends in `/`, two or more spaces go before the phrase."""
    paths, stack = [], []
    for line in text.splitlines():
        match = re.match(r"( *)(\S+)(?:  +\S|$)", line)
        if match:
            depth = len(match[1])
            stack = [(indent, name) for indent, name in stack if indent < depth]
            paths.append("".join(name for _, name in stack) + match[2])
            if match[2].endswith("/"):
                stack.append((depth, match[2]))
    return paths


def reference_script():
    spec = importlib.util.spec_from_file_location("make_cli_reference", ROOT / "scripts" / "make_cli_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- the tests ------------------------------------------------------------------------------------------------------


def test_the_cli_reference_is_what_the_code_says():
    assert (ROOT / "docs" / "cli.md").read_text("utf-8") == reference_script().reference(), \
        "run: python scripts/make_cli_reference.py"


def test_the_cli_reference_has_every_command():
    def names(command, before):
        inner = getattr(command, "commands", {})
        own = [before] if not inner or command.invoke_without_command else []
        return own + [name for word, other in inner.items() for name in names(other, f"{before} {word}")]

    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert re.findall(r"^## (kit .*)$", text, re.MULTILINE) == names(TYPER_APP, "kit")


def test_an_option_of_kit_cv_alone_is_not_shown_as_one_of_kit_submit():
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    of_training, cv, submit = (text.split(f"\n## {title}\n")[1].split("\n## ")[0]
                               for title in ("Options of training", "kit cv", "kit submit"))
    assert "`--against TEXT`" in cv and "`--epochs N`" in of_training and "`--fetch`" in submit
    assert "--against" not in of_training + submit
    assert all("[options of training]" in section for section in (cv, submit))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_in_blocks_parse(page):
    for program, *words in shell_commands(page.read_text("utf-8")):
        if program == "kit":
            parse(words)
            continue
        assert (ROOT / words[0]).is_file(), f"there is no {words[0]}"
        if words[0] == "scripts/submit.sh":
            parse(["submit", "--fetch", *words[1:]])


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_no_program_in_a_block_is_overlooked(page):
    ours = {"kit", "bash"}
    assert {words[0] for words in programs(page.read_text("utf-8"))} - OTHER_PROGRAMS <= ours


@pytest.fixture
def reader_s_folder(tmp_path, monkeypatch):
    """Where a reader types: empty, but for the files that the docs suppose one has; models of one layer."""
    from kit.data.sample import draw_digits
    from tests import public_formats as public

    monkeypatch.chdir(tmp_path)
    small = {name: dataclasses.replace(recipe, layers=flat, tta=1) for name, recipe in models.RECIPES.items()}
    monkeypatch.setattr(models, "RECIPES", small)
    assert cli.run(["download", "--from", "sample", "--quiet"]) == 0
    sample = tmp_path / "data" / "kannada-mnist-sample"
    shutil.copy(sample / "test.csv", "new.csv")
    with zipfile.ZipFile("Kannada-MNIST.zip", "w") as archive:
        for path in sample.glob("*.csv"):
            archive.write(path, path.name)
    for name, text in own_files().items():
        (tmp_path / name).write_text(text)
    digits = draw_digits(4, 50)
    images = digits.pixels.reshape(-1, 28, 28)
    np.savez("mnist.npz", x_train=images[:150], y_train=digits.labels[:150],
             x_test=images[150:], y_test=digits.labels[150:])
    public.write_toml_files()
    public.draw_shapes(tmp_path / "shapes")
    public.draw_sign_language(tmp_path / "sign-language-mnist.zip")
    public.draw_fashion_idx(tmp_path / "fashion-idx")
    public.draw_devanagari()
    return tmp_path


def flat():
    from keras import layers

    return [layers.Flatten()]


def as_typed(words: list[str]) -> list[str]:
    """The words for `cli.run`: scripts/submit.sh is `kit submit --fetch`; what trains is made short."""
    program, *words = words
    if program == "bash":
        words = ["submit", "--fetch", *words[1:]]
    trains = words[0] in ("cv", "submit") and not set(words) & COMPLETION
    elsewhere = ["--data-dir", "from-zip"] if words[-1] == "Kannada-MNIST.zip" else []
    return [*words, *(QUICKLY if trains else ()), *elsewhere]


@pytest.mark.slow
def test_every_command_in_a_block_runs(reader_s_folder, capsys):
    """In one folder, from the first page to the last, as somebody would who reads them all."""
    pages = sorted(PAGES, key=lambda page: [*READING_ORDER, page_id(page)].index(page_id(page)))
    typed = [words for page in pages for words in shell_commands(page.read_text("utf-8"))]
    assert set(NOT_RUN) <= {shlex.join(words) for words in typed}, "an exception that no page needs any more"
    failed = {}
    for words in typed:
        if shlex.join(words) not in NOT_RUN:
            code = cli.run(as_typed(words))
            said = capsys.readouterr().err
            if code:
                failed[shlex.join(words)] = (code, said)
    assert failed == {}
    assert (reader_s_folder / "compare.html").is_file() and (reader_s_folder / "labels.csv").is_file()


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_in_running_text_are_there(page):
    for mention in mentions(page.read_text("utf-8")):
        if mention.startswith("bash"):
            assert (ROOT / mention.split()[1]).is_file(), f"there is no {mention!r}"
            continue
        command, left = walk(mention.split()[1:])
        if getattr(command, "commands", None) and left:  # a group: all that may follow is an option, or a placeholder
            assert not re.match(r"[a-z]", left[0]), f"there is no {mention!r}"
        given = {word for word in re.findall(r"--[a-z][a-z-]*", " ".join(left))}
        assert given <= options_of(command), f"{mention!r}: {sorted(given - options_of(command))}"


@pytest.mark.parametrize("words", [["sumbit"], ["submit", "--modle", "cnn"], ["predict", "first"],
                                   ["kernel", "psuh"], ["cv", "--folds", "five"],
                                   ["cv", "--model", "resnet"], ["cv", "--tta", "99"]])
def test_the_parser_here_would_notice_a_slip(words):
    with pytest.raises((UsageError, AssertionError, KitError)):
        parse(words)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page_id(page)} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(file), f"{page_id(page)} links to {target}: no such heading"


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_s_tree_names_files_that_are_there():
    text = (ROOT / "README.md").read_text("utf-8")
    named = [path for block in blocks(text, "text") if block.startswith("kit/") for path in tree(block)]
    rooms = {path.name for path in (ROOT / "kit").iterdir() if not path.name.startswith("__")}
    assert {path.removeprefix("kit/").rstrip("/") for path in named} >= rooms
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_architecture_names_every_module():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = {path for block in blocks(text, "text") if block.startswith("kit/") for path in tree(block)
             if path.endswith(".py")}
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "kit").rglob("*.py")
             if path.name not in ("__init__.py", "__main__.py")}
    assert named == there


def test_the_architecture_draws_the_rooms_as_import_linter_keeps_them():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    paths = next(tree(block) for block in blocks(text, "text") if block.startswith("kit/"))
    drawn = list(dict.fromkeys(path.split("/")[1].removesuffix(".py") for path in paths if path.endswith(".py")))
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    layers = settings["importlinter:contract:rooms"]["layers"].split("\n")
    assert drawn == [room.strip() for line in reversed(layers) if line for room in line.split("|")]


def missing_tests(text: str) -> list[str]:
    """The tests of `file.py::test`, or of `::test` with its file named before it, that are gone."""
    missing, path = [], ""
    for file, test in re.findall(r"(tests/[\w/]+\.py)|::(\w+)", text):
        path = file or path
        if test and test not in functions(ROOT / path):
            missing.append(f"{path}::{test}")
    return missing


@functools.cache
def functions(path: Path) -> set[str]:
    nodes = ast.parse(path.read_text("utf-8")).body if path.is_file() else []
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_tests_that_are_named_exist(page):
    assert missing_tests(page.read_text("utf-8")) == []


def test_a_test_that_is_gone_is_missed():
    here = "tests/test_docs.py::test_links_lead_somewhere, `::test_no_such`, `::parse`"
    assert missing_tests(here) == ["tests/test_docs.py::test_no_such"]
    assert (ROOT / "docs" / "reliability.md").read_text("utf-8").count("::test_") > 60


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_error_messages_are_the_code_s(page):
    """In troubleshooting.md each heading quotes a message of the code, with … for what varies."""
    if page.name != "troubleshooting.md":
        return
    places = [*(ROOT / "kit").rglob("*.py"), *(ROOT / "scripts").glob("*.sh"), ROOT / "scripts" / "install.py"]
    source = "\n".join(path.read_text("utf-8") for path in places)
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # messages that go over several lines
    for heading in re.findall(r"^### `(.*)`$", page.read_text("utf-8"), re.MULTILINE):
        for part in heading.split("…"):
            assert part.strip() in source, f"no message of the kit says {part.strip()!r}"


def test_the_shell_completes_commands_and_options():
    """What `kit --install-completion` installs asks `kit` itself, this way."""
    def completed(words: str) -> list[str]:
        asked = {"_KIT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
        code = "from kit.commands.cli import main; main()"
        return subprocess.run([sys.executable, "-c", code], env={**os.environ, **asked}, cwd=ROOT,
                              capture_output=True, text=True, check=False).stdout.split()

    assert completed("kit su") == ["submit"]
    assert completed("kit kernel re") == ["rehearse"]
    assert completed("kit submit --mod") == ["--model"]
