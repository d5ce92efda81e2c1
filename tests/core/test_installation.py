"""The kit's version and commit: in a checkout, a kernel, an installation, and a mere copy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kit.core import installation

GIT = ["git", "-c", "user.name=me", "-c", "user.email=me@example.org"]


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A copy of the kit, without git, that nobody has installed."""
    folder = tmp_path / "copy" / "kit"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    monkeypatch.setattr(installation, "KIT", folder)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return folder


@pytest.fixture
def commit(package):
    """Commit all that is there; the commit's hash."""
    def git(*words: str) -> str:
        return subprocess.run([*GIT, *words], cwd=package.parent, check=True,
                              capture_output=True, text=True).stdout

    def commit() -> str:
        git("add", "--all")
        git("commit", "--quiet", "--allow-empty", "--message", "a change")
        return git("rev-parse", "HEAD").strip()

    git("init", "--quiet")
    commit.git = git
    return commit


def test_in_a_checkout_it_counts_from_the_last_tag(package, commit):
    first = commit()
    assert installation.kit_version() == f"0.post1.dev1+unknown.g{first[:7]}"
    commit.git("tag", "v1.2.3")
    assert installation.kit_version() == "1.2.3"
    assert installation.describe() == f"kit 1.2.3, git commit {first}"
    commit.git("tag", "run-7")  # a tag of something else
    second = commit()
    assert installation.kit_version() == f"1.2.3.post1.dev1+g{second[:7]}"
    (package / "__init__.py").write_text("changed")
    assert installation.source_commit() == f"{second}, with local changes"


def test_a_copy_says_that_nothing_is_known(package):
    assert installation.kit_version() == "unknown"  # although another copy is installed
    assert installation.source_commit() == "unknown (kit unknown, not a git checkout)"


def test_in_somebody_else_s_repository_their_commit_is_not_the_kit_s(package, commit):
    (package.parent / ".gitignore").write_text("kit/\n")
    commit()
    assert installation.source_commit() == "unknown (kit unknown, not a git checkout)"


def test_without_git_a_checkout_is_a_copy(package, commit, monkeypatch):
    commit()
    monkeypatch.setenv("PATH", "")
    assert installation.kit_version() == "unknown"


def test_a_kernel_has_the_version_that_was_packed(package):
    (package / installation.PACKED_VERSION).write_text("1.2.3\n")
    assert installation.kit_version() == "1.2.3"


@pytest.mark.parametrize("editable", [False, True])
def test_what_pip_has_installed_is_believed_of_this_copy_alone(package, tmp_path, monkeypatch,
                                                               editable):
    site = tmp_path / "site" if editable else package.parent
    facts = site / "kannada_kit-1.2.3.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: kannada-kit\nVersion: 1.2.3\nRequires-Dist: numpy\n"
        'Requires-Dist: ray>=2.30; extra == "ray"\n')
    if editable:
        origin = {"url": package.parent.as_uri(), "dir_info": {"editable": True}}
        (facts / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(site)
    assert installation.describe() == "kit 1.2.3, not a git checkout"
    fix = f'{sys.executable} -m pip install "ray>=2.30"'
    assert installation.how_to_install("ray") == fix
    monkeypatch.setattr(installation, "KIT", tmp_path / "elsewhere" / "kit")
    assert installation.kit_version() == "unknown"


def test_in_a_checkout_its_script_installs_what_is_missing(package, monkeypatch):
    monkeypatch.setattr(installation.sys, "executable", "/my venv/bin/python")
    assert installation.how_to_install().startswith('"/my venv/bin/python" -m pip check, ')
    (package.parent / "scripts").mkdir()
    (package.parent / "scripts" / "setup.sh").touch()
    assert installation.how_to_install() == "bash scripts/setup.sh in the kit's folder"
    assert installation.how_to_install("ray") == "bash scripts/setup.sh ray in the kit's folder"
    monkeypatch.setattr(installation.sys, "platform", "win32")  # which has no bash
    assert "bash" not in installation.how_to_install("ray")
