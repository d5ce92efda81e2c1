"""The inputs of a kernel lie where Kaggle mounts them, spelled as Kaggle spells them; what is missing is named."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kit.commands.cli import app
from kit.core import provenance
from kit.core.errors import KitError
from kit.kernel import builder
from kit.rehearsal import image, preflight, sandbox, sources
from kit.rehearsal import rehearse as rehearsal
from kit.rehearsal.rehearse import find_inputs, rehearse
from kit.rehearsal.sources import Source, mount_points
from tests.rehearsal.kernels import GOOD, write_kernel

NEW, OLD = '"competitions" / "Kannada-MNIST"', '"Kannada-MNIST"'


def folder_with(path: Path, **files: str) -> Path:
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)
    return path


# -- the competition's own files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place, layout, ok", [
    (NEW, "new", True), (OLD, "old", True), (OLD, "new", False), (NEW, "old", False),
    ('"competitions" / "kannada-mnist"', "new", False), ('"kannada-mnist"', "old", False)])
def test_the_competition_lies_where_kaggle_mounts_it_in_its_spelling(tmp_path, data, place, layout, ok):
    verdict = rehearse(write_kernel(tmp_path, GOOD.replace(NEW, place)), data, time_limit=60, layout=layout)
    assert verdict.ok is ok
    assert ok or any("not found" in why for why in verdict.reasons)


def test_a_kernel_is_told_that_it_is_the_rerun(tmp_path, data):
    code = GOOD + 'assert os.environ["KAGGLE_IS_COMPETITION_RERUN"] and os.environ["KAGGLE_KERNEL_RUN_TYPE"] == "Batch"'
    assert rehearse(write_kernel(tmp_path, code), data, time_limit=60).reasons == []


@pytest.mark.parametrize("layout", sources.LAYOUTS)
def test_the_kit_s_own_kernel_finds_its_data_and_weights_in_both_layouts(tmp_path, layout):
    metadata = {"id": "me/a-kit", "dataset_sources": ["me/a-kit-weights"]}
    folder = write_kernel(tmp_path / "k", GOOD, **metadata)
    folder_with(folder / "weights", **{"dataset-metadata__json": '{"id": "me/a-kit-weights"}', "manifest__json": "{}"})
    inputs = find_inputs(folder, (), layout)
    from kit.data.competition import KANNADA
    from kit.runtime.mounts import find_data, find_weights

    for place in inputs.mount_points.values():
        folder_with(tmp_path / "input" / place)
    (tmp_path / "input" / inputs.data_mount_point / "test.csv").touch()
    [weights] = [place for source, place in inputs.mount_points.items() if source.kind == "dataset"]
    manifest = tmp_path / "input" / weights / "manifest.json"
    manifest.touch()
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert find_data(tmp_path / "input", KANNADA) == tmp_path / "input" / inputs.data_mount_point
    assert find_weights(tmp_path / "input", "me/a-kit-weights", digest) == tmp_path / "input" / weights


# -- what lies beside them --------------------------------------------------------------------------------------------


INPUTS = [Source("competition", "Kannada-MNIST"), Source("dataset", "ada/wheels"),
          Source("model", "google/gemma/pyTorch/2b-it/3"), Source("kernel", "bob/train-it")]


def test_each_input_has_its_place_in_each_layout():
    assert list(mount_points(INPUTS, "new").values()) == [
        "competitions/Kannada-MNIST", "datasets/ada/wheels", "models/google/gemma/pytorch/2b-it/3",
        "notebooks/bob/train-it"]
    assert list(mount_points(INPUTS, "old").values()) == [
        "Kannada-MNIST", "wheels", "gemma/pytorch/2b-it/3", "train-it"]


def test_two_inputs_of_one_name_get_their_owners_folders_in_the_old_layout():
    both = [Source("dataset", "ada/wheels"), Source("kernel", "bob/wheels"), Source("dataset", "ada/other")]
    assert list(mount_points(both, "old").values()) == ["ada/wheels", "bob/wheels", "other"]


def test_an_unknown_layout_is_named():
    with pytest.raises(KitError, match="--layout 'newest' is unknown"):
        mount_points(INPUTS, "newest")


READS = """
for name in {paths!r}:
    path = root / "input" / name
    print(name, path.read_text())
"""
METADATA = {"dataset_sources": ["ada/wheels"], "model_sources": ["google/gemma/pyTorch/2b-it/3"],
            "kernel_sources": ["bob/train-it"], "competition_sources": ["kannada-mnist", "digit-recognizer"]}


@pytest.mark.parametrize("layout", sources.LAYOUTS)
def test_somebody_else_s_kernel_reads_all_its_inputs(tmp_path, data, layout):
    folder_with(tmp_path / "wheels", **{"a__whl": "wheel"})
    folder_with(tmp_path / "google" / "gemma" / "pytorch" / "2b-it" / "3", **{"model__bin": "model"})
    folder_with(tmp_path / "output", **{"kernel-metadata__json": '{"id": "bob/train-it"}', "out__csv": "output"})
    folder_with(tmp_path / "digits", **{"train__csv": "digits"})
    mounts = [str(tmp_path / "wheels"), str(tmp_path / "google/gemma/pytorch/2b-it/3"), str(tmp_path / "output"),
              f"digit-recognizer={tmp_path / 'digits'}"]
    paths = {"new": ["datasets/ada/wheels/a.whl", "models/google/gemma/pytorch/2b-it/3/model.bin",
                     "notebooks/bob/train-it/out.csv", "competitions/digit-recognizer/train.csv"],
             "old": ["wheels/a.whl", "gemma/pytorch/2b-it/3/model.bin", "train-it/out.csv",
                     "digit-recognizer/train.csv"]}[layout]
    code = GOOD.replace(NEW, NEW if layout == "new" else OLD) + READS.format(paths=paths)
    said = []
    verdict = rehearse(write_kernel(tmp_path / "k", code, **METADATA), data, time_limit=60, mounts=mounts,
                       layout=layout, say=said.append)
    assert verdict.reasons == []
    assert said == [f"{path} {text}" for path, text in zip(paths, ("wheel", "model", "output", "digits"), strict=True)]


def test_what_a_kernel_does_to_an_input_does_not_reach_the_folder_here(tmp_path, data, monkeypatch):
    monkeypatch.setattr(sandbox, "unshare_command", tuple)
    wheels = folder_with(tmp_path / "wheels", **{"a__whl": "wheel"})
    code = GOOD + ("path = root / 'input/datasets/ada/wheels/a.whl'\n"
                   "path.parent.chmod(0o777)\npath.chmod(0o666)\npath.write_text('changed')\npath.unlink()\n")
    folder = write_kernel(tmp_path / "k", code, dataset_sources=["ada/wheels"])
    assert rehearse(folder, data, time_limit=60, mounts=[str(wheels)]).ok
    assert (wheels / "a.whl").read_text() == "wheel" and (wheels / "a.whl").stat().st_mode & 0o200


def test_missing_inputs_are_named_all_at_once_before_anything_runs(tmp_path, data):
    wheels = folder_with(tmp_path / "wheels")
    folder = write_kernel(tmp_path / "k", "raise SystemExit('it ran')", **METADATA | {
        "competition_sources": ["kannada-mnist"]})
    with pytest.raises(KitError, match=r"the model google/gemma/pyTorch/2b-it/3, the kernel bob/train-it") as caught:
        rehearse(folder, data, mounts=[str(wheels)])
    assert "ada/wheels" not in caught.value.message
    for command in ("kaggle models variations versions download google/gemma/pyTorch/2b-it/3 --untar -p gemma",
                    "kaggle kernels output bob/train-it -p train-it", "--mount gemma --mount train-it"):
        assert command in caught.value.fix


def test_missing_inputs_of_one_name_get_folders_of_their_own(tmp_path, data):
    folder = write_kernel(tmp_path / "a kernel", GOOD, dataset_sources=["ada/wheels", "bob/wheels"])
    with pytest.raises(KitError) as caught:
        rehearse(folder, data)
    for command in ("kaggle datasets download ada/wheels --unzip -p ada-wheels",
                    f"kit kernel rehearse '{folder}' --mount ada/wheels=ada-wheels --mount bob/wheels=bob-wheels"):
        assert command in caught.value.fix


def test_missing_weights_of_the_kit_s_own_kernel_are_built_again(tmp_path, data):
    folder = write_kernel(tmp_path, GOOD, id="me/a-kit", dataset_sources=["me/a-kit-weights"])
    with pytest.raises(KitError, match="has no folder weights/") as caught:
        rehearse(folder, data)
    assert "--mode predict --run" in caught.value.fix


@pytest.mark.parametrize("named, mount, message, fix", [
    ({}, "wheels", "names no other input than the competition", '"dataset_sources"'),
    ({"dataset_sources": ["ada/sheets"]}, "wheels", "is none of the inputs that .*: ada/sheets", "--mount ada/sheets="),
    ({"dataset_sources": ["ada/wheels", "bob/wheels"]}, "wheels", "may be the dataset ada/wheels or the dataset bob",
     "--mount ada/wheels="),
    ({"dataset_sources": ["ada/wheels"]}, "gone", "gone is not there", "a folder that is there"),
    ({"dataset_sources": ["ada/wheels"]}, "ada/wheels=gone", "gone is not there", "a folder that is there"),
    ({"dataset_sources": ["ada/wheels"]}, "wheels.zip", "is a zip, which Kaggle would have unpacked", "unzip"),
    ({"dataset_sources": ["ada/wheels"]}, "wheels.txt", "is a file", "the folder that it is in"),
    ({"dataset_sources": ["ada/wheels"]}, "wheels wheels", "two folders stand for the dataset ada/", "leave one of"),
    ({}, "Kannada-MNIST=wheels", "wheels stands for the competition kannada-mnist", "leave that --mount out")])
def test_a_mount_that_stands_for_nothing_is_named(tmp_path, data, monkeypatch, named, mount, message, fix):
    monkeypatch.chdir(tmp_path)
    folder_with(tmp_path / "wheels", **{"a__whl": "wheel"})
    for name in ("wheels.zip", "wheels.txt"):
        (tmp_path / name).touch()
    with pytest.raises(KitError, match=message) as caught:
        rehearse(write_kernel(tmp_path / "k", GOOD, **{
            **named, "competition_sources": ["kannada-mnist"]}), data, mounts=mount.split())
    assert fix in caught.value.fix


def test_a_folder_below_its_owner_s_is_the_owner_s(tmp_path):
    for owner in ("ada", "bob"):
        folder_with(tmp_path / owner / "wheels")
    folder = write_kernel(tmp_path / "k", GOOD, dataset_sources=["ada/wheels", "bob/wheels"])
    inputs = find_inputs(folder, [str(tmp_path / "bob/wheels"), str(tmp_path / "ada/wheels")])
    assert inputs.folders[Source("dataset", "ada/wheels")] == tmp_path / "ada/wheels"


def test_a_second_competition_must_be_laid_in(tmp_path, data):
    folder = write_kernel(tmp_path, GOOD, competition_sources=["kannada-mnist", "digit-recognizer"])
    with pytest.raises(KitError, match="names 2 competitions") as caught:
        rehearse(folder, data)
    assert "--mount digit-recognizer=FOLDER" in caught.value.fix


@pytest.mark.parametrize("named", [{"model_sources": ["google/gemma"]}, {"kernel_sources": ["train-it"]},
                                   {"kernel_sources": "bob/train-it"}, {"dataset_sources": ["a/../.."]},
                                   {"competition_sources": ["../etc"]}])
def test_sources_that_are_no_references_are_named_with_their_form(tmp_path, data, named):
    [name] = named
    with pytest.raises(KitError, match=f"{name} cannot be") as caught:
        rehearse(write_kernel(tmp_path, GOOD, **named), data)
    assert "write a list, such as" in caught.value.fix


def test_the_command_line_lays_inputs_in(tmp_path, data, monkeypatch):
    folder_with(tmp_path / "wheels", **{"a__whl": "wheel"})
    folder = write_kernel(tmp_path / "k", GOOD, dataset_sources=["ada/wheels"])
    given = []
    monkeypatch.setattr(rehearsal, "rehearse",
                        lambda *positional, **options: given.append(options) or rehearsal.Verdict(ok=True))
    monkeypatch.setattr("kit.data.source.find_data", lambda competition, data_dir: type("Data", (), {"path": data}))
    words = ["kernel", "rehearse", str(folder), "--mount", str(tmp_path / "wheels"), "--layout", "old"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert (given[0]["mounts"], given[0]["layout"]) == ([str(tmp_path / "wheels")], "old")
    given.clear()
    assert CliRunner().invoke(app, words[:3]).exit_code != 0 and not given


# -- where this machine is not Kaggle ---------------------------------------------------------------------------------


def test_a_machine_without_namespaces_says_where_it_is_not_kaggle(tmp_path, data, monkeypatch):
    monkeypatch.setattr(sandbox, "_try_unshare",
                        lambda: ((), "unshare failed: Operation not permitted"))
    code = 'open("/kaggle/input/competitions/Kannada-MNIST/test.csv")\n'
    verdict = rehearse(write_kernel(tmp_path, code), data, time_limit=60)
    assert verdict.sandbox == "python"
    notes = "\n".join(verdict.notes)
    for words in ("no Linux namespaces here (unshare failed: Operation not permitted)", "/kaggle does not exist here",
                  "!curl, reach the network", "the input is protected by the modes of its files alone",
                  "it names /kaggle itself, which is not on this machine"):
        assert words in notes
    assert not verdict.ok and all(f"note: {note}" in verdict.lines() for note in verdict.notes)


@pytest.mark.skipif(not sandbox.unshare_command(), reason="namespaces are not permitted here")
def test_a_machine_with_namespaces_and_kaggle_s_versions_has_nothing_to_say(tmp_path, data, monkeypatch):
    monkeypatch.setattr(provenance, "KAGGLE_IMAGE", provenance.installed_versions())
    assert rehearse(write_kernel(tmp_path, GOOD), data, time_limit=60).notes == []


def test_other_versions_than_kaggle_s_are_said(tmp_path, data, monkeypatch):
    here = provenance.installed_version("numpy")
    there = {"numpy": "1.0.2", "pandas": provenance.installed_version("pandas")}
    monkeypatch.setattr(provenance, "KAGGLE_IMAGE", there)
    [note] = rehearse(write_kernel(tmp_path, GOOD), data, time_limit=60).notes[-1:]
    assert f"numpy {here} (there 1.0.2)" in note and "pandas" not in note


def test_a_kernel_that_asks_for_a_gpu_is_said_to_have_none_here(tmp_path, data, monkeypatch):
    monkeypatch.setattr(preflight, "has_gpu", lambda: False)
    verdict = rehearse(write_kernel(tmp_path, GOOD, enable_gpu=True), data, time_limit=60)
    assert verdict.ok and any("asks for a GPU" in note for note in verdict.notes)


@pytest.mark.parametrize("module, reason", [
    ("catboost", "catboost is in Kaggle's image and not on this machine"),
    ("kaggle_secrets", "kaggle_secrets is there on Kaggle alone")])
def test_what_only_this_machine_lacks_is_not_called_the_kernel_s_fault(tmp_path, data, module, reason):
    verdict = rehearse(write_kernel(tmp_path, f"import {module}\n" + GOOD), data, time_limit=60)
    assert any(reason in why for why in verdict.reasons)


@pytest.mark.parametrize("module", ["typer", "psutil", "h5py", "PIL"])
def test_what_kaggle_s_image_has_may_be_imported(module):
    assert module in image.importable()


# -- its output -------------------------------------------------------------------------------------------------------


def test_bytes_that_are_no_utf_8_are_said_however_they_come(tmp_path, data):
    code = GOOD + ("import sys, time\nfor part in (b'caf\\xe9', b'\\xe9 half', b' a line\\n\\xff\\xfe', b'end'):\n"
                   "    sys.stdout.buffer.write(part)\n    sys.stdout.flush()\n    time.sleep(0.5)\n")
    said = []
    verdict = rehearse(write_kernel(tmp_path, code), data, time_limit=60, say=said.append)
    assert verdict.reasons == []
    assert said == ["caf\ufffd\ufffd half a line", "\ufffd\ufffdend"]


# -- a folder that is no kernel, or not quite ------------------------------------------------------------------------


@pytest.mark.parametrize("text, message, fix", [
    (b'\xef\xbb\xbf{"id": 1}', "byte order mark", "UTF-8 without one"), (b'{"a": 1,}', "line 1 column", "correct it"),
    (b'\xff\xfe{\x00', "byte 1 is not UTF-8", "save it again as UTF-8"),
    (b"[]", "it is not a JSON object", "begin it with {")])
def test_metadata_that_cannot_be_read_is_told_apart(tmp_path, text, message, fix):
    folder = write_kernel(tmp_path, GOOD)
    (folder / builder.METADATA).write_bytes(text)
    with pytest.raises(KitError, match=message) as caught:
        find_inputs(folder)
    assert fix in caught.value.fix


def test_metadata_that_may_not_be_read_is_told_how(tmp_path, monkeypatch):
    folder = write_kernel(tmp_path, GOOD)

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(KitError, match=r"cannot read .*: Permission denied") as caught:
        find_inputs(folder)
    assert "chmod u+r" in caught.value.fix


@pytest.mark.parametrize(("metadata", "language"), [
    ({"language": "r"}, "R;"), ({"language": "rmarkdown"}, "R Markdown;"),
    ({"kernel_type": "notebook", "language": "R"}, "R;"),
    ({"kernel_type": "notebook", "notebook": {"kernelspec": {"name": "ir", "language": "R"}}}, "R;")])
def test_r_is_refused_by_name(tmp_path, data, metadata, language):
    with pytest.raises(KitError, match=f"is written in {language} a rehearsal runs Python alone"):
        rehearse(write_kernel(tmp_path, GOOD, **metadata), data)


@pytest.mark.parametrize("language", [None, "julia"])
def test_a_language_that_kaggle_s_client_refuses_is_a_reason(tmp_path, data, language):
    folder = write_kernel(tmp_path, GOOD)
    metadata = json.loads((folder / builder.METADATA).read_text()) | {"language": language}
    (folder / builder.METADATA).write_text(json.dumps(metadata))
    assert any("its language is" in why for why in rehearse(folder, data, time_limit=60).reasons)


@pytest.mark.parametrize("number, place, message, fix", [
    (28, "stage", "no room for the rehearsal in", "free some space there, or use a folder on another disk: TMPDIR="),
    (122, "stage", "no room for the rehearsal in", "TMPDIR="), (30, "stage", "cannot write .*test.csv", "TMPDIR="),
    (13, "source", "cannot read .*Dig-MNIST.csv", "chmod u+r"),
    (5, "source", "cannot read .*Dig-MNIST.csv", "is there")])
def test_what_stops_the_layout_is_told_apart(tmp_path, data, monkeypatch, number, place, message, fix):
    def write_with_hidden_test(source, target, *_):
        file = target / "test.csv" if place == "stage" else source / "Dig-MNIST.csv"
        raise OSError(number, os.strerror(number), str(file))

    monkeypatch.setattr(rehearsal, "write_with_hidden_test", write_with_hidden_test)
    with pytest.raises(KitError, match=message) as caught:
        rehearse(write_kernel(tmp_path, GOOD), data)
    assert fix in caught.value.fix


# -- what a kernel brings along and installs --------------------------------------------------------------------------


def wheel(folder: Path) -> Path:
    """A wheel of a package that nobody has."""
    folder.mkdir(parents=True)
    info = "brought_along-1.0.dist-info"
    with zipfile.ZipFile(folder / "brought_along-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("brought_along.py", "ANSWER = 42\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: brought-along\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return folder


INSTALL = GOOD + """
import subprocess, sys
pip = [sys.executable, "-m", "pip"]
[brought] = (root / "input").rglob("*.whl")
subprocess.run([*pip, "install", "--no-index", str(brought)], check=True)
import brought_along
assert brought_along.ANSWER == 42
subprocess.run([*pip, "uninstall", "-y", "typer"])
"""


@pytest.mark.skipif(not sandbox.unshare_command(), reason="elsewhere pip is refused")
def test_a_wheel_among_the_inputs_is_installed_for_the_kernel_alone(tmp_path, data):
    folder = write_kernel(tmp_path / "k", INSTALL, dataset_sources=["ada/wheels"])
    verdict = rehearse(folder, data, time_limit=120, mounts=[str(wheel(tmp_path / "wheels"))])
    assert verdict.reasons == []
    assert importlib.util.find_spec("brought_along") is None
    assert importlib.metadata.version("typer") and importlib.util.find_spec("typer")


def test_without_namespaces_pip_is_refused_and_that_is_said(tmp_path, data, monkeypatch):
    monkeypatch.setattr(sandbox, "unshare_command", tuple)
    folder = write_kernel(tmp_path / "k", INSTALL, dataset_sources=["ada/wheels"])
    verdict = rehearse(folder, data, time_limit=60, mounts=[str(wheel(tmp_path / "wheels"))])
    assert not verdict.ok and not any("imports pip" in why for why in verdict.reasons)
    assert any("pip is refused here" in note for note in verdict.notes)
    assert importlib.util.find_spec("brought_along") is None
