"""`kit doctor` inside a kernel on Kaggle: what it says there, and that its fixes can be carried out there."""

import dataclasses
import socket

import pytest

import kit
from kit.commands import doctor, doctor_on_kaggle
from kit.core import backend, provenance
from kit.data import competition as competitions
from kit.data import source
from tests.data.tiny import TINY, write_folder

OFF = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@pytest.fixture(autouse=True)
def kaggle(tmp_path, monkeypatch):
    """A session on Kaggle with the competition attached; nothing heavy is imported, no network is asked."""
    monkeypatch.setitem(competitions.COMPETITIONS, "tiny", TINY)
    monkeypatch.setenv("KIT_KAGGLE_ROOT", str(tmp_path / "kaggle"))
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(backend, "load", lambda: "tensorflow")
    monkeypatch.setattr(backend, "gpus", lambda: [])
    monkeypatch.setattr(backend, "cpu_flags", lambda: {"amx_bf16"})
    monkeypatch.setattr(doctor, "seen_gpus", lambda: [])
    monkeypatch.setattr(doctor_on_kaggle.socket, "create_connection", lambda *_: (_ for _ in ()).throw(OFF))
    (tmp_path / "kaggle" / "working").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "kaggle" / "working")
    write_folder(tmp_path / "kaggle" / "input" / "competitions" / "Tiny")
    return tmp_path / "kaggle"


def examine():
    result = kit.doctor("tiny")
    assert all(one["fix"] for one in result["findings"] if one["state"] != doctor.OK)
    return {one["name"]: one for one in result["findings"]}


def test_it_looks_at_all_that_it_should():
    assert list(examine()) == [
        "Kaggle", "image", "versions", "internet", "mounts", "kit", "Python", "backend", "environment", "GPU",
        "precision", "processes", "memory", "disk", "credentials", "data"]


def test_a_kernel_needs_no_credential(tmp_path, monkeypatch):
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = examine()["credentials"]
    assert found["state"] == doctor.OK and "none is needed" in found["found"] and not found["fix"]
    monkeypatch.setenv("KAGGLE_API_TOKEN", "two words")
    assert examine()["credentials"]["state"] == doctor.BAD


def test_elsewhere_it_is_the_machine_s_own(kaggle, tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_KAGGLE_ROOT", str(tmp_path / "nowhere"))
    assert "Kaggle image" in examine() and "mounts" not in examine()


@pytest.mark.parametrize(("variables", "words"), [
    ({}, "an interactive session, "), ({"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, "the run of a saved version, "),
    ({"KAGGLE_KERNEL_RUN_TYPE": "Batch", "KAGGLE_IS_COMPETITION_RERUN": "1"}, "on the hidden test file, "),
    ({"KAGGLE_KERNEL_RUN_TYPE": "Batch", "KIT_REHEARSAL": "rules.json"}, "rehearsed on another machine, ")])
def test_the_kind_of_session(kaggle, monkeypatch, variables, words):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = examine()["Kaggle"]
    assert found["state"] == doctor.OK and words in found["found"]
    assert found["found"].endswith(f" GB free in {kaggle / 'working'}")


def test_kaggle_s_image_somewhere_else(monkeypatch):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE")
    found = examine()["Kaggle"]
    assert found["state"] == doctor.NOTE and found["found"].startswith("no session of Kaggle's")


def test_the_image_by_its_two_files(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_on_kaggle, "BUILD_DATE", tmp_path / "build_date")
    monkeypatch.setattr(doctor_on_kaggle, "BUILD_COMMIT", tmp_path / "git_commit")
    assert examine()["image"]["state"] == doctor.NOTE
    (tmp_path / "build_date").write_text("20260512-101500\n")
    (tmp_path / "git_commit").write_text("1d2e3f\n")
    assert examine()["image"]["found"] == "built 20260512-101500, commit 1d2e3f"


def test_versions_beside_the_image_s(monkeypatch):
    here = dict(provenance.KAGGLE_IMAGE)
    monkeypatch.setattr(provenance, "installed_version", here.get)
    assert examine()["versions"]["state"] == doctor.OK
    here["keras"], here["python"] = "3.12.9", "3.12.11"  # an older one counts as well; a third number does not
    found = examine()["versions"]
    assert found["state"] == doctor.NOTE and found["found"].endswith(": keras 3.12.9 (there 3.13.2)")


@pytest.mark.parametrize("code_only", [True, False])
@pytest.mark.parametrize("is_on", [True, False])
def test_the_internet(monkeypatch, code_only, is_on):
    """Off where the competition takes notebooks only, and there alone a thing to be glad of."""
    if is_on:
        monkeypatch.setattr(doctor_on_kaggle.socket, "create_connection", lambda *_: socket.socket())
    found = doctor_on_kaggle._internet(dataclasses.replace(TINY, code_only=code_only))
    assert found.found.split(",")[0].split(":")[0] == ("on" if is_on else "off")
    assert (found.state == doctor.OK) == (is_on != code_only)


def test_an_accelerator_is_what_the_backend_can_use(monkeypatch):
    found = examine()["GPU"]
    assert found["found"] == "none: this session has no accelerator" and "session options" in found["fix"]
    monkeypatch.setattr(backend, "gpus", lambda: ["Tesla T4", "Tesla T4"])
    monkeypatch.setattr(backend, "resolve_precision", lambda asked: ("float16", "tensor cores"))
    assert examine()["GPU"] == {"name": "GPU", "state": "ok", "found": "2 usable: Tesla T4, Tesla T4", "fix": ""}
    monkeypatch.setattr(backend, "gpus", lambda: [])
    monkeypatch.setattr(doctor, "seen_gpus", lambda: ["Tesla T4"])
    assert "none usable by tensorflow" in examine()["GPU"]["found"]


def test_what_is_mounted(kaggle):
    (kaggle / "input" / "wheels").mkdir()
    (kaggle / "input" / "wheels" / "a.whl").touch()
    place = kaggle / "input" / "competitions" / "Tiny"
    assert examine()["mounts"]["found"] == f"the competition's files are in {place}; also mounted: wheels"
    place.rename(kaggle / "input" / "tinier")
    found = examine()["mounts"]
    assert found["state"] == doctor.BAD and "mounted there is tinier, wheels" in found["found"]


def test_the_data_is_taken_from_where_it_is_mounted(kaggle):
    place = kaggle / "input" / "competitions" / "Tiny"
    assert examine()["data"]["fix"] == f"kit download --from {place} --competition tiny"
    source.download(TINY, place, kaggle / "working" / "data")
    assert examine()["data"]["found"].startswith("data/tiny: intact")


def test_a_session_that_has_nothing_is_examined_to_the_end(kaggle):
    (kaggle / "input" / "competitions" / "Tiny").rename(kaggle / "input" / "gone")
    found = examine()
    assert (found["mounts"]["state"], found["data"]["state"]) == (doctor.BAD, doctor.BAD)
    assert found["data"]["fix"].startswith("add the competition as an input")
