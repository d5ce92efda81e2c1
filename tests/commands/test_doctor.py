"""`kit doctor` tells the truth, above all where something is wrong; and no credential is in what it says."""

import collections
import errno
import importlib.metadata
import json
import os
import stat

import pytest

from kit.commands import doctor
from kit.core import ambient, backend, provenance
from kit.core.errors import KitError
from kit.data.source import download
from kit.training import executors
from tests.data.tiny import TINY, write_folder
from tests.test_docs import ROOT

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine with TensorFlow and without a GPU; the tests change it. Nothing heavy is imported."""
    monkeypatch.setattr(backend, "load", lambda: "tensorflow")
    monkeypatch.setattr(backend, "gpus", lambda: [])
    monkeypatch.setattr(backend, "cpu_flags", lambda: {"amx_bf16"})
    monkeypatch.setattr(doctor, "seen_gpus", lambda: [])
    for name in [*ambient.KEPT_FOR_BOTH, *ambient.KEPT["tensorflow"], *ambient.OVERRIDDEN["tensorflow"]]:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def data(tmp_path):
    return download(TINY, write_folder(tmp_path / "given"), tmp_path / "data")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".kaggle").mkdir(parents=True)
    return tmp_path / "home"


def key_file(home, mode, text=f'{{"username": "me", "key": "{SECRET}"}}'):
    path = home / ".kaggle" / "kaggle.json"
    path.write_text(text)
    path.chmod(mode)
    return path


def examine(tmp_path) -> dict[str, doctor.Finding]:
    found = doctor.examine(TINY, tmp_path / "data")
    assert SECRET not in "\n".join(map(str, found)) and SECRET not in json.dumps([one.to_dict() for one in found])
    return {one.name: one for one in found}


def test_it_looks_at_all_that_it_should(tmp_path, data):
    assert list(examine(tmp_path)) == ["kit", "Python", "backend", "environment", "GPU", "precision", "processes",
                                       "memory", "disk", "credentials", "data", "Kaggle image"]


# -- the four cases made on purpose ---------------------------------------------------------------------------------


def test_no_credentials(tmp_path, data):
    found = examine(tmp_path)["credentials"]
    assert found.state == doctor.NOTE and found.found.startswith("none") and "access token" in found.fix


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_world_readable_kaggle_json(tmp_path, data, home):
    path = key_file(home, 0o644)
    found = examine(tmp_path)["credentials"]
    assert found.state == doctor.BAD and "other users of this machine can read it" in found.found
    assert found.fix == f"chmod 600 {path}"
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)  # the fix works
    found = examine(tmp_path)["credentials"]
    assert found.state == doctor.OK and found.found == f"kaggle.json, in {path}" and not found.fix


@pytest.mark.parametrize("name", ["train.csv", "test.csv", "extra.csv", "sample_submission.csv"])
@pytest.mark.parametrize("how", ["one byte", "cut", "gone"])
def test_corrupt_data(tmp_path, data, name, how):
    path = data.path / name
    before, times = path.read_bytes(), path.stat()
    if how == "gone":
        path.unlink()
    else:
        last = b"8\n" if before[-2:-1] != b"8" else b"7\n"
        path.write_bytes(before[:-2] + last if how == "one byte" else before[:-9])
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    found = examine(tmp_path)["data"]
    if (name, how) == ("train.csv", "gone"):
        assert found.state == doctor.NOTE and "there is no data" in found.found and "kit download" in found.fix
    else:
        assert found.state == doctor.BAD and found.fix == (
            f"get it again: kit download --force --from {tmp_path / 'given'} --competition {TINY.slug} "
            f"--data-dir {tmp_path / 'data'}")
        assert f"{path} is {'missing' if how == 'gone' else 'corrupt'}" in found.found


def test_no_gpu(tmp_path, data):
    found = examine(tmp_path)
    assert found["GPU"].state == doctor.NOTE and found["GPU"].found == "none: folds train on the CPU"
    assert found["precision"].found == "bfloat16: this CPU multiplies bfloat16 in hardware"


# -- the others -----------------------------------------------------------------------------------------------------


def test_all_is_well(tmp_path, data, home, machine):
    key_file(home, 0o600)
    machine.setattr(backend, "gpus", lambda: ["Tesla T4", "Tesla T4"])
    machine.setattr(backend, "resolve_precision", lambda asked: ("float16", "tensor cores"))
    machine.setattr("kit.core.system.free_memory", lambda: 16_000_000_000)
    machine.setattr(doctor.shutil, "disk_usage", lambda path: collections.namedtuple("Usage", "free")(10**11))
    machine.setattr(provenance, "KAGGLE_IMAGE", {"numpy": "99.0"})
    found = examine(tmp_path)
    assert {one.state for one in found.values()} == {doctor.OK} and not any(one.fix for one in found.values())
    assert found["GPU"].found == "2 usable: Tesla T4, Tesla T4" and found["precision"].found == "float16: tensor cores"
    assert found["data"].found == (
        f"{data.path}: intact, from files on this machine (train.csv 200, test.csv 5, extra.csv 20)")


@pytest.mark.parametrize(("hidden", "pattern"), [(None, "1 seen, none usable by tensorflow: NVIDIA L4"),
                                                 ("", "hidden by CUDA_VISIBLE_DEVICES"), ("-1", "hidden by")])
def test_a_gpu_that_cannot_be_used(tmp_path, data, machine, hidden, pattern):
    machine.setattr(doctor, "seen_gpus", lambda: ["NVIDIA L4"])
    if hidden is not None:
        machine.setenv("CUDA_VISIBLE_DEVICES", hidden)
    found = examine(tmp_path)["GPU"]
    assert found.state == doctor.BAD and pattern in found.found and found.fix


def test_gpus_as_the_driver_shows_them(tmp_path, monkeypatch):
    monkeypatch.undo()
    for bus, text in (("0000:01", "Model: \t\t NVIDIA H200\nIRQ: 5\n"), ("0000:02", "Model: NVIDIA H200\n")):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "information").write_text(text)
    assert doctor.seen_gpus(tmp_path) == ["NVIDIA H200", "NVIDIA H200"]
    assert doctor.seen_gpus(tmp_path / "none") == []


def test_jax_is_not_told_to_install_the_cuda_of_tensorflow(tmp_path, data, machine):
    machine.setattr(backend, "load", lambda: "jax")
    machine.setattr(backend, "has_tpu", lambda: False)
    machine.setattr(doctor, "seen_gpus", lambda: ["NVIDIA L4"])
    found = examine(tmp_path)["GPU"]
    assert "none usable by jax" in found.found and "'jax[cuda12]'" in found.fix and "tensorflow" not in found.fix
    machine.setenv("JAX_PLATFORMS", "cpu")
    found = examine(tmp_path)["GPU"]
    assert found.found == "1 seen, hidden by JAX_PLATFORMS=cpu" and found.fix == "unset JAX_PLATFORMS"
    machine.setattr(backend, "has_tpu", lambda: True)
    found = examine(tmp_path)["GPU"]
    assert (found.state, found.found) == (doctor.OK, "none, but a TPU")


def test_processes_that_cannot_work_together(tmp_path, data, machine):
    machine.setattr(executors, "why_no_processes", lambda: "the system refuses the semaphores (Permission denied)")
    found = examine(tmp_path)["processes"]
    assert found.state == doctor.NOTE and "train one after another" in found.found and "--shm-size" in found.fix


def test_a_disk_without_locks_and_one_that_cannot_be_written(tmp_path, data, machine):
    machine.setattr("kit.core.locks.supports_locks", lambda folder: False)
    assert "without file locks" in examine(tmp_path)["disk"].found

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    machine.setattr(doctor.tempfile, "TemporaryFile", refuse)
    found = examine(tmp_path)["disk"]
    assert found.state == doctor.BAD and "Read-only file system" in found.found and "mounted read-only" in found.fix


def test_without_the_training_library_the_rest_is_examined(tmp_path, data, machine):
    def missing():
        raise KitError("the training library is missing", "install it")

    machine.setattr(backend, "load", missing)
    machine.setattr(backend, "gpus", missing)
    found = examine(tmp_path)
    assert (found["backend"].state, found["backend"].fix) == (doctor.BAD, "install it")
    assert found["data"].state == doctor.OK


def test_what_nobody_expects_is_a_finding(tmp_path, data, machine):
    def broken():
        raise RuntimeError("libcuda went away")

    machine.setattr(backend, "gpus", broken)
    found = examine(tmp_path)["GPU"]
    assert found.state == doctor.BAD and "RuntimeError: libcuda went away" in found.found and found.fix


def test_a_damaged_kaggle_json(tmp_path, data, home):
    key_file(home, 0o600, "{")
    found = examine(tmp_path)["credentials"]
    assert found.state == doctor.BAD and "is damaged" in found.found


def test_no_data(tmp_path):
    found = examine(tmp_path)["data"]
    assert found.state == doctor.NOTE and "there is no data of tiny" in found.found and "kit download" in found.fix


def test_the_sample_is_called_one(tmp_path, monkeypatch):
    monkeypatch.setattr("kit.data.sample.draw_sample", lambda folder, competition: write_folder(folder, n_train=40))
    download(TINY, "sample", tmp_path / "data")
    found = examine(tmp_path)["data"]
    assert found.state == doctor.NOTE and "the drawn sample, whose scores say nothing" in found.found


def test_little_memory_and_disk(tmp_path, data, machine):
    machine.setattr("kit.core.system.free_memory", lambda: 1_500_000_000)
    machine.setattr(doctor.shutil, "disk_usage", lambda path: collections.namedtuple("Usage", "free")(10**9))
    found = examine(tmp_path)
    assert found["memory"].state == doctor.NOTE and "1.5 GB free" in found["memory"].found
    assert found["disk"].state == doctor.BAD and "1.0 GB free" in found["disk"].found and found["disk"].fix


def test_an_old_python(tmp_path, data, machine):
    machine.setattr(doctor.sys, "version_info", (3, 14, 0))
    found = examine(tmp_path)["Python"]
    assert found.state == doctor.BAD and "Python 3.11 to 3.13" in found.fix


def test_newer_versions_than_on_kaggle(tmp_path, data, machine):
    machine.setattr(provenance, "KAGGLE_IMAGE", {"numpy": "1.0", "pandas": "99.0", "not-here": "0.1"})
    found = examine(tmp_path)["Kaggle image"]
    assert found.state == doctor.NOTE and "numpy" in found.found and "pandas" not in found.found and found.fix
    assert "not-here" not in found.found and provenance.KAGGLE_IMAGE_DATE in found.found


def test_a_difference_in_the_third_number_is_none(tmp_path, data, machine):
    machine.setattr(provenance, "KAGGLE_IMAGE", {"numpy": "2.0.2", "pandas": "2.2.2"})
    machine.setattr(provenance, "installed_version", {"numpy": "2.0.9rc1", "pandas": "2.2.30"}.get)
    assert examine(tmp_path)["Kaggle image"].state == doctor.OK


def test_the_table_of_kaggles_image_is_the_one_that_its_tests_install():
    pinned = dict(line.split("==") for line in (ROOT / "constraints-kaggle.txt").read_text().split() if "==" in line)
    assert {name: pinned.get(name) for name in provenance.KAGGLE_IMAGE if name != "python"} == {
        name: version for name, version in provenance.KAGGLE_IMAGE.items() if name != "python"}


def test_tensorflow_is_found_under_the_names_that_it_is_installed_by(tmp_path, data, machine):
    """Kaggle's TPU image has tensorflow-cpu."""
    def version(name):
        if name != "tensorflow-cpu":
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.20.0"

    machine.setattr(importlib.metadata, "version", version)
    assert provenance.installed_version("tensorflow") == "2.20.0" and provenance.installed_version("keras") is None
    assert "on tensorflow 2.20.0" in examine(tmp_path)["backend"].found


def test_a_line_for_each_and_its_fix_below():
    finding = doctor.Finding("disk", doctor.BAD, "0.1 GB free", "free some")
    assert str(finding) == "bad  disk         0.1 GB free\n                  fix: free some"
    assert finding.to_dict() == {"name": "disk", "state": "bad", "found": "0.1 GB free", "fix": "free some"}
    assert str(doctor.Finding("disk", doctor.OK, "9 GB free")) == "ok   disk         9 GB free"
