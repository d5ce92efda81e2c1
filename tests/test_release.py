"""A release: wheel and sdist of a tagged commit, built without a network, and the kit in them."""

import email
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from kit.kernel import builder

ROOT = Path(__file__).parents[1]
GIT = ["git", "-c", "user.name=me", "-c", "user.email=me@example.org"]
pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")]


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """What a command prints, without the tester's settings; its failure fails the test."""
    ambient = {name: value for name, value in os.environ.items()
               if not name.startswith(("PIP_", "PYTHON", "SETUPTOOLS_SCM", "KIT_"))}
    done = subprocess.run(list(map(str, command)), cwd=cwd, text=True, timeout=1200,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=ambient | {"PIP_NO_INDEX": "1"} | variables)
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def tagged(tmp_path_factory) -> Path:
    """A repository of what is here now, in one commit with the tag v9.8.7."""
    folder = tmp_path_factory.mktemp("release") / "tagged"
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(lambda name: (ROOT / name).is_file(), names.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    for words in (["init", "--quiet"], ["add", "--all", "--force"],
                  ["commit", "--quiet", "--message", "all"], ["tag", "v9.8.7"]):
        run(*GIT, *words, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def built(tagged) -> tuple[Path, Path]:
    """Wheel and sdist as docs/contributing.md has them built, but with the packages here."""
    run(sys.executable, "-m", "build", "--no-isolation", cwd=tagged)
    [wheel], [sdist] = (list((tagged / "dist").glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    return wheel, sdist


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """The programs of an environment with the wheel; its dependencies are those of the tests."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=venv.parent)
    run(sys.executable, "-m", "pip", "--python", venv / "bin" / "python", "install", "--no-deps",
        built[0], cwd=venv.parent)
    [packages] = venv.glob("lib/*/site-packages")
    # Only the folder: its own .pth files, and with them an editable kit, do not count
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv / "bin"


def tracked(folder: Path, under: str = "") -> set[str]:
    return set(run("git", "ls-files", "-z", "--", under or ".", cwd=folder).split("\0")) - {""}


def version_of(folder: Path, out: Path) -> str:
    """The version that pip would install from `folder`."""
    out.mkdir()
    run(sys.executable, "-c", "import sys; from setuptools import build_meta as build; "
        "build.prepare_metadata_for_build_wheel(sys.argv[1])", out, cwd=folder)
    [facts] = out.glob("*.dist-info/METADATA")
    return email.message_from_string(facts.read_text("utf-8"))["Version"]


# -- where the version comes from ------------------------------------------------------------------


def test_each_kind_of_copy_can_be_installed_and_has_a_version(tagged, tmp_path):
    url = tagged.as_uri()
    for name, options in (("autocrlf", ["-c", "core.autocrlf=true"]),
                          ("shallow", ["--depth", "1"]),
                          ("untagged", ["--depth", "1", "--no-tags"])):
        run("git", "clone", "--quiet", *options, url, tmp_path / name, cwd=tmp_path)
    run("git", "clone", "--quiet", url, tmp_path / "later", cwd=tmp_path)
    run(*GIT, "commit", "--quiet", "--allow-empty", "--message", "more", cwd=tmp_path / "later")
    # GitHub's zip of a commit is made by git archive
    run("git", "archive", "--output", tmp_path / "zip.tar", "HEAD", cwd=tagged)
    with tarfile.open(tmp_path / "zip.tar") as files:
        files.extractall(tmp_path / "zip", filter="data")
    shutil.copytree(tagged, tmp_path / "copied", ignore=shutil.ignore_patterns(".git"))
    shutil.copytree(tmp_path / "copied", tmp_path / "broken")
    (tmp_path / "broken" / ".git").write_text("gitdir: /nowhere\n")  # a worktree, copied elsewhere
    kinds = ("autocrlf", "shallow", "zip", "later", "untagged", "copied", "broken")
    versions = {name: version_of(tmp_path / name, tmp_path / f"of {name}") for name in kinds}
    assert {versions[name] for name in ("autocrlf", "shallow", "zip")} == {"9.8.7"}
    assert versions["later"].startswith("9.8.7.post1.dev1+g")
    # Older ones of setuptools-scm write 0.0
    assert re.match(r"0(\.0)?\.post1\.dev1\+", versions["untagged"])
    assert versions["copied"] == versions["broken"] == "0+unknown"


# -- what is in them -------------------------------------------------------------------------------


def test_the_wheel_has_the_package_with_all_its_files_and_nothing_else(built, tagged):
    with zipfile.ZipFile(built[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        licence = wheel.read("kannada_kit-9.8.7.dist-info/licenses/LICENSE")
    assert names == tracked(tagged, "kit")
    assert licence == (ROOT / "LICENSE").read_bytes()


def test_a_kernel_packs_all_of_the_package(tagged):
    with zipfile.ZipFile(io.BytesIO(builder.pack_source({}))) as packed:
        assert set(packed.namelist()) == tracked(tagged, "kit") | {"kit/VERSION"}


def test_the_sdist_builds_the_same_wheel_and_carries_the_version(built, tagged, tmp_path):
    with tarfile.open(built[1]) as files:
        files.extractall(tmp_path, filter="data")
    source = tmp_path / "kannada_kit-9.8.7"
    inside = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    made = {name for name in inside if name.startswith("kannada_kit.egg-info/")} | {"PKG-INFO"}
    assert inside - made == {"LICENSE", "MANIFEST.in", "README.md", "docs/changelog.md",
                             "pyproject.toml", "setup.cfg"} | tracked(tagged, "kit")
    assert version_of(source, tmp_path / "facts") == "9.8.7"
    # `python -m build` makes its wheel from the sdist: so this is another way to the same
    again = tmp_path / "again"
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir",
        again, tagged, cwd=tmp_path)
    with zipfile.ZipFile(built[0]) as one, zipfile.ZipFile(again / built[0].name) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())


# -- the kit that is installed from it -------------------------------------------------------------


def test_from_an_empty_folder_to_a_rehearsed_kernel(installed, tmp_path):
    kit = installed / "kit"
    assert run(kit, "--version", cwd=tmp_path) == "kit 9.8.7, not a git checkout\n"
    run(kit, "download", "--from", "sample", cwd=tmp_path)
    run(installed / "python", "-m", "kit", "submit", "--run", "first", "--limit", "50",
        "--epochs", "1", "--folds", "2", cwd=tmp_path)
    assert "<html" in (tmp_path / "submissions" / "first" / "report.html").read_text("utf-8")
    run(kit, "validate", "submissions/first/submission.csv", cwd=tmp_path)
    config = json.loads((tmp_path / "submissions" / "first" / "config.json").read_text())
    assert config["git_commit"] == "unknown (kit 9.8.7, not a git checkout)"
    run(kit, "kernel", "build", "--mode", "predict", "--run", "first", cwd=tmp_path)
    head = (tmp_path / "kernel" / "kernel.py").read_text("utf-8")[:2000]
    assert "kit 9.8.7, git commit unknown (kit 9.8.7, not a git checkout)" in head
    said = run(kit, "kernel", "rehearse", "kernel", cwd=tmp_path)
    assert "kit 9.8.7, predict, " in said and "yes: this would be a submission" in said
    assert re.search("ok   kit +9.8.7, not a git checkout, in ", run(kit, "doctor", cwd=tmp_path))
