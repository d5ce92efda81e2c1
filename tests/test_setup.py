"""The scripts on other machines: pip set up in other ways, versions that are not there, a clone made on Windows."""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("install", ROOT / "scripts" / "install.py")
install = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(install)


def names(lines: list[str]) -> dict[str, str]:
    """Pins by the normalised name of their package."""
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}


def at_least(version: str, least: str) -> bool:
    return [int(part) for part in re.findall(r"\d+", version)] >= [int(part) for part in re.findall(r"\d+", least)]


# -- the lists of versions --------------------------------------------------------------------------------------------


def test_constraints_hold_every_requirement_and_keep_its_lower_bound():
    tried = names((ROOT / "constraints.txt").read_text().splitlines())
    for pin in install.lower_bounds(ROOT / "setup.cfg"):
        name, least = pin.partition(";")[0].split("==")
        assert at_least(tried[name], least), f"constraints.txt has {name} {tried[name]}, setup.cfg asks for {least}"


def test_constraints_hold_what_is_needed_indirectly():
    """Down from the kit to whatever its packages ask for, as far as those here are the versions of the list."""
    tried, todo, seen = names((ROOT / "constraints.txt").read_text().splitlines()), ["kannada-kit"], set()
    while todo:
        for requirement in importlib.metadata.requires(todo.pop()) or ():
            name = re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # of an extra or another platform
                version = importlib.metadata.version(name)
                if name not in seen and "extra ==" not in requirement:
                    assert name in tried, f"{requirement} is installed, and constraints.txt does not say which"
                    todo += [name] if version == tried[name] else []
                    seen.add(name)
    assert {"tensorflow", "numpy"} <= seen


def test_lower_bounds_are_exact_versions(tmp_path):
    (tmp_path / "setup.cfg").write_text(
        '[options]\ninstall_requires =\n    numpy>=1.26\n    tensorflow>=2.20; python_version<"3.14"\n'
        "[options.extras_require]\ngpu =\n    tensorflow[and-cuda]>=2.21\n")
    assert install.lower_bounds(tmp_path / "setup.cfg") == [
        "numpy==1.26", 'tensorflow==2.20; python_version<"3.14"', "tensorflow==2.21"]


@pytest.mark.parametrize("requirement", ["numpy", "numpy<3", "numpy==1.26", "numpy>=1.26,<3"])
def test_a_requirement_without_a_lower_bound_alone_is_refused(tmp_path, requirement):
    (tmp_path / "setup.cfg").write_text(
        f"[options]\ninstall_requires =\n    {requirement}\n[options.extras_require]\n")
    with pytest.raises(ValueError, match="has no lower bound"):
        install.lower_bounds(tmp_path / "setup.cfg")


# -- pip, set up in other ways ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def venv(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("machine") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/*/site-packages"))
    (packages / "pip").symlink_to(Path(importlib.util.find_spec("pip").origin).parent)  # its own takes 10 s
    return folder


@pytest.fixture
def pip(venv, tmp_path, monkeypatch):
    """Install the package `tiny` (there is version 1 of it, in a folder) by install.py; the answer, with its words."""
    wheel = zipfile.ZipFile(tmp_path / "tiny-1-py3-none-any.whl", "w")
    with wheel:
        wheel.writestr("tiny.py", "")
        wheel.writestr("tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1\n")
        wheel.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.dist-info/RECORD", "tiny.py,,\ntiny-1.dist-info/METADATA,,\ntiny-1.dist-info/WHEEL,,\n"
                       "tiny-1.dist-info/RECORD,,\n")
    for name in filter(re.compile("PIP_").match, list(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    def run(pins: str = "tiny==1\n") -> subprocess.CompletedProcess:
        (tmp_path / "constraints.txt").write_text(pins)
        return subprocess.run([venv / "bin" / "python", "-I", ROOT / "scripts" / "install.py", "tried", "tiny"],
                              cwd=tmp_path, capture_output=True, text=True)

    yield run
    shutil.rmtree(next(venv.glob("lib/*/site-packages/tiny-1.dist-info")), ignore_errors=True)
    next(venv.glob("lib/*/site-packages/tiny.py")).unlink()


def has_tiny(venv: Path) -> bool:
    return bool(list(venv.glob("lib/*/site-packages/tiny.py")))


@pytest.mark.parametrize("place", ["variables", "pip.conf"])
def test_ambient_settings_do_not_change_what_is_installed_or_where(pip, venv, tmp_path, monkeypatch, place):
    (tmp_path / "other.txt").write_text("tiny==2\n")
    elsewhere = str(tmp_path / "elsewhere")
    settings = {"constraint": str(tmp_path / "other.txt"), "dry-run": "1", "no-binary": ":all:", "prefix": elsewhere,
                "require-hashes": "1", "root": elsewhere, "target": elsewhere, "user": "1"}
    if place == "variables":
        for name, value in settings.items():
            monkeypatch.setenv(f"PIP_{name.upper().replace('-', '_')}", value)
    else:
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (tmp_path / "pip.conf").write_text(f"[install]\n{lines}")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    done = pip()
    assert done.returncode == 0, done.stderr
    assert has_tiny(venv)
    assert not Path(elsewhere).exists()
    [named] = re.findall(r"settings of pip are set aside here: (.*)", done.stderr)
    assert set(settings) <= set(named.split(", "))


def test_a_companys_settings_stay(monkeypatch, tmp_path):
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://pypi.example/simple\nproxy = http://proxy.example:8080\n"
        "cert = /etc/company.pem\ncache-dir = /cache\nuser = true\n[install]\nindex-url = https://nearer.example\n")
    for name in filter(re.compile("PIP_").match, list(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_PROXY", "http://other.example:8080")
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    environment = install.clean_environment(install.settings_of_pip())
    assert {name: value for name, value in environment.items() if name.startswith(("PIP_", "PYTHON"))} == {
        "PIP_INDEX_URL": "https://nearer.example", "PIP_PROXY": "http://other.example:8080",
        "PIP_CERT": "/etc/company.pem", "PIP_CACHE_DIR": "/cache", "PIP_CONFIG_FILE": os.devnull}


def test_without_a_wheel_of_the_tried_version_it_is_said_and_done_without(pip, venv):
    done = pip("tiny==2\n")
    assert done.returncode == 0, done.stderr
    assert has_tiny(venv)
    assert "a version of constraints.txt has no wheel for this machine" in done.stderr


# -- the shell --------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_variables_of_the_tester(monkeypatch):
    for name in ("CDPATH", "PYTHON", "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder with the scripts and an environment whose programs only note down what they were asked for."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "constraints.txt", "constraints-kaggle.txt"):
        shutil.copy(ROOT / name, folder)
    pretend_venv(folder / ".venv")
    return folder


def pretend_venv(venv: Path) -> None:
    for name in ("python", "kit"):
        program(venv / "bin" / name, f'echo "{name} $@" >> "$(dirname "$0")/asked"')


def program(path: Path, line: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{line}\n")
    path.chmod(0o755)
    return path


def ask_for(checkout: Path, *extras: str, **variables: str) -> tuple[list[str], str]:
    """What pip is asked to install by `setup_kit extras`, and what the user reads."""
    asked = checkout / ".venv" / "bin" / "asked"
    asked.unlink(missing_ok=True)
    done = subprocess.run(["bash", "-c", '. scripts/setup.sh; setup_kit "$@"', "setup", *extras], cwd=checkout,
                          env=os.environ | {"PYTHON": sys.executable} | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = asked.read_text().splitlines() if asked.exists() else []
    return [line for line in lines if "install.py" in line], done.stderr


def test_pip_runs_once_and_again_where_a_list_of_versions_or_the_folder_changed(checkout):
    assert [line.split("install.py ")[1] for line in ask_for(checkout, "dev")[0]] == ["tried --editable .[dev]"]
    assert ask_for(checkout, "dev") == ([], "")
    for name in ("constraints.txt", "setup.cfg", "pyproject.toml"):
        with (checkout / name).open("a") as file:
            file.write("# changed\n")
        assert len(ask_for(checkout, "dev")[0]) == 1, name
        assert ask_for(checkout, "dev")[0] == []
    moved = checkout.rename(checkout.with_name("moved"))  # programs in .venv/bin name their folder
    assert len(ask_for(moved, "dev")[0]) == 1


def test_variables_that_lead_elsewhere_are_set_aside_and_named(checkout):
    elsewhere = checkout / "elsewhere" / "scripts"
    elsewhere.mkdir(parents=True)
    asked, words = ask_for(checkout, PYTHONPATH=str(elsewhere), PYTHONUSERBASE="/nowhere", PYTHONHOME="/nowhere",
                         CDPATH=str(elsewhere.parent))
    assert len(asked) == 1
    for name in ("PYTHONPATH", "PYTHONUSERBASE", "PYTHONHOME"):
        assert f"note: {name} is set aside here" in words


def test_a_python_that_is_not_there_is_named_with_the_versions_that_would_do(checkout):
    done = subprocess.run(["bash", "-c", ". scripts/setup.sh; find_python 3.1 3.2"], cwd=checkout,
                          capture_output=True, text=True)
    assert done.returncode == 2
    assert "error: no Python of version 3.1 or 3.2 was found" in done.stderr
    assert "fix: install one" in done.stderr


def test_pyenvs_folders_are_looked_into(checkout, tmp_path):
    """Its shims for versions that are not switched on exit with 127."""
    python = program(tmp_path / "pyenv" / "versions" / "3.1.4" / "bin" / "python", "echo 3.1")
    done = subprocess.run(["bash", "-c", ". scripts/setup.sh; find_python 3.1"], cwd=checkout, capture_output=True,
                          text=True, env=os.environ | {"PYENV_ROOT": str(tmp_path / "pyenv")})
    assert done.stdout.strip() == str(python)


@pytest.mark.parametrize(("option", "version", "installs", "tests"), [
    ("--newest", "3.12", "newest --editable .[dev]", "not slow and not kaggle_image"),
    ("--lowest", "3.11", "lowest --editable .[dev]", "not slow and not kaggle_image"),
    ("--kaggle-image", "3.12", "listed --requirement constraints-kaggle.txt", "kaggle_image")])
def test_each_set_of_versions_has_its_environment(checkout, tmp_path, option, version, installs, tests):
    venv = checkout / f".venv-{option.split('-')[2]}"
    pretend_venv(venv)
    asked = venv / "bin" / "asked"
    python = program(tmp_path / "python", f"echo {version}")
    for call in ("first", "second"):
        asked.unlink(missing_ok=True)
        done = subprocess.run(["bash", "scripts/test.sh", option, "-k", "folds"], cwd=checkout, capture_output=True,
                              env=os.environ | {"PYTHON": str(python)}, text=True)
        assert done.returncode == 0, done.stderr
        lines = asked.read_text().splitlines()
        assert re.fullmatch(rf"python -m pytest -m {tests}( tests/\S+)? -k folds", lines[-1])
        installed = [line.split("install.py ")[1] for line in lines if "install.py" in line]
        assert installed == ([installs] if call == "first" or option == "--newest" else [])
        runs = [line for line in lines if line.startswith("kit ")]
        assert runs == ([] if option == "--kaggle-image" else [
            "kit download --from sample", "kit submit --limit 50 --epochs 1 --folds 2"])


# -- a clone made on Windows ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_a_clone_with_autocrlf_has_the_same_bytes(tmp_path):
    git = ["git", "-c", "core.autocrlf=true", "-c", "core.safecrlf=false"]
    subprocess.run([*git, "clone", "--quiet", "--no-hardlinks", ROOT, tmp_path / "clone"], check=True)
    files = subprocess.run(["git", "ls-tree", "-r", "-z", "HEAD"], cwd=tmp_path / "clone", capture_output=True,
                           text=True, check=True).stdout.split("\0")
    assert len(files) > 100
    for line in filter(None, files):
        blob, name = line.split(" ")[2].split("\t")
        data = (tmp_path / "clone" / name).read_bytes()
        assert hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == blob, name


def test_no_committed_text_has_windows_line_ends():
    """`.gitattributes` keeps bytes as they were committed: so they must be right there."""
    for path in [ROOT / ".ci" / "run", *(ROOT / "scripts").iterdir(), *ROOT.glob("*.*")]:
        if path.is_file():
            assert b"\r\n" not in path.read_bytes(), path
