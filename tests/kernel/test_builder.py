"""The kernel folder: accepted by the official client's rules, the same bytes each time, and its source whole."""

import ast
import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import asdict

import numpy as np
import pytest
from slugify import slugify
from typer.testing import CliRunner

import kit
from kit.commands.cli_kaggle import kernel as commands
from kit.core.errors import KitError
from kit.core.storage import write_bytes, write_json
from kit.data.competition import DIGIT_RECOGNIZER, KANNADA
from kit.kernel import builder, template, weights
from kit.training.jobs import FoldJob
from kit.training.records import NUMBERS


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["script", "notebook"])
def test_twice_built_is_the_same_bytes_and_under_a_megabyte(tmp_path, kind):
    first = contents(builder.build(tmp_path / "one", KANNADA, user="someone", kind=kind))
    assert contents(builder.build(tmp_path / "two", KANNADA, user="someone", kind=kind)) == first
    assert contents(builder.build(tmp_path / "one", KANNADA, user="someone", kind=kind)) == first
    assert sorted(first) == sorted([builder.KINDS[kind], "kernel-metadata.json"])
    assert len(first[builder.KINDS[kind]]) < 1_000_000


def test_the_metadata_is_what_kaggle_needs_to_hear(tmp_path):
    folder = builder.build(tmp_path, KANNADA, user="someone", slug="my-kannada-kernel")
    metadata = json.loads((folder / "kernel-metadata.json").read_text())
    assert metadata == {
        "id": "someone/my-kannada-kernel", "title": "My Kannada Kernel", "code_file": "kernel.py",
        "language": "python", "kernel_type": "script", "is_private": True, "enable_internet": False,
        "enable_gpu": True, "enable_tpu": False, "machine_shape": "NvidiaTeslaT4", "dataset_sources": [],
        "competition_sources": ["kannada-mnist"], "kernel_sources": [], "model_sources": [], "keywords": []}


@pytest.mark.parametrize("slug", ["kannada-mnist-kit", "a1-b2-c3", "12345", "digit-recognizer-2"])
def test_the_title_slugifies_to_the_id_by_the_clients_own_rule(slug):
    assert slugify(weights.title_from_slug(slug)) == slug


@pytest.mark.parametrize("accelerator, gpu, tpu, shape", [
    ("t4x2", True, False, "NvidiaTeslaT4"), ("tpu", False, True, "TpuV5E8"), ("none", False, False, None)])
def test_accelerators(tmp_path, accelerator, gpu, tpu, shape):
    folder = builder.build(tmp_path, DIGIT_RECOGNIZER, accelerator=accelerator)
    metadata = json.loads((folder / "kernel-metadata.json").read_text())
    assert (metadata["enable_gpu"], metadata["enable_tpu"]) == (gpu, tpu)
    assert metadata.get("machine_shape") == shape
    assert metadata["competition_sources"] == ["digit-recognizer"]


IMAGE = "gcr.io/kaggle-images/python@sha256:" + "f4b6dd72" * 8


@pytest.mark.parametrize("image, words", [
    (IMAGE, {"docker_image": IMAGE}), ("original", {"docker_image_pinning_type": "original"}),
    ("latest", {"docker_image_pinning_type": "latest"}), (None, {})])
def test_the_image_is_pinned_by_the_clients_own_words(tmp_path, image, words):
    option = ["--docker-image", image] if image else []
    result = CliRunner().invoke(commands, ["build", "--out", str(tmp_path), *option])
    assert result.exit_code == 0, result.output
    metadata = json.loads((tmp_path / "kernel-metadata.json").read_text())
    assert {name: value for name, value in metadata.items() if name.startswith("docker")} == words


@pytest.mark.parametrize("accelerator, asked, settings", [
    ("t4x2", {}, '"models": ["deep", "strong"],"seeds": 4,"self_train": 2,'),
    ("none", {}, '"models": ["deep", "strong"],"seeds": 2,"self_train": 2,'),
    ("none", {"self_train": 1}, '"self_train": 1,'),
    ("t4x2", {"seeds": 2}, '"seeds": 2,"epochs": None,"self_train": 2,'),
    ("none", {"models": ("cnn",)}, '"seeds": 1,"epochs": None,"self_train": 0,')])
def test_what_is_left_open_is_the_accelerators_setting(tmp_path, accelerator, asked, settings):
    text = (builder.build(tmp_path, KANNADA, accelerator=accelerator, **asked) / "kernel.py").read_text()
    for setting in settings.split(",")[:-1]:
        assert setting in text


def test_the_command_takes_models_with_spaces_between_them(tmp_path):
    result = CliRunner().invoke(commands, ["build", "--out", str(tmp_path), "--model", "cnn, mlp", "--self-train", "2"])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "kernel.py").read_text()
    assert '"models": ["cnn", "mlp"],' in text and '"self_train": 2,' in text
    assert "trains cnn, mlp on 5 folds, then further on the test rows (2x)" in " ".join(text[:2_000].split())


def test_without_a_user_the_id_holds_a_placeholder(tmp_path):
    folder = builder.build(tmp_path, KANNADA)
    assert json.loads((folder / "kernel-metadata.json").read_text())["id"].startswith("INSERT_USERNAME_HERE/")


@pytest.mark.parametrize("options, message", [
    ({"slug": "Bad_Slug"}, "cannot be the slug"), ({"slug": "x--y-z"}, "cannot be the slug"),
    ({"slug": "tiny"}, "cannot be the slug"), ({"slug": "a" * 43}, "cannot be the slug"),
    ({"kind": "rmarkdown"}, "--kind"), ({"mode": "guess"}, "--mode"), ({"accelerator": "p100"}, "--accelerator"),
    ({"mode": "predict"}, "needs the weights of a run"), ({"models": ("nope",)}, "no model 'nope'"),
    ({"folds": 1}, "--folds 1 is too small"), ({"minutes": 0}, "0 minutes"),
    ({"docker_image": "python:3.12"}, "is no image of Kaggle's"),
    ({"docker_image": "gcr.io/kaggle-images/python@sha256:f4b6"}, "is no image of Kaggle's"),
])
def test_what_cannot_be_built(tmp_path, options, message):
    with pytest.raises(KitError, match=message):
        builder.build(tmp_path / "k", KANNADA, **options)
    assert not (tmp_path / "k").exists()


def test_a_script_tells_a_person_what_it_is_and_where_it_came_from(tmp_path):
    folder = builder.build(tmp_path, KANNADA, models=("cnn", "cnn_aug"), epochs=7, seed=3, minutes=90)
    text = (folder / "kernel.py").read_text()
    head = " ".join(text[:text.index("SHA256 =")].split())
    for words in ("Kannada MNIST", "trains cnn, cnn_aug on 5 folds", "within 90 minutes",
                  f"kit {kit.__version__}, git commit", hashlib.sha256(builder.pack_source({})).hexdigest(),
                  '"epochs": 7,', '"seed": 3,', '"minutes": 90,'):
        assert words in head
    assert max(map(len, text.splitlines())) <= 140


def test_a_notebook_has_a_kernelspec_and_cells_that_compile(tmp_path):
    import nbformat

    notebook = nbformat.read(builder.build(tmp_path, KANNADA, kind="notebook") / "kernel.ipynb", 4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert [cell.cell_type for cell in notebook.cells] == ["markdown", "code", "code", "code"]
    for cell in notebook.cells[1:]:
        compile(cell.source, "cell", "exec")


@pytest.mark.parametrize("accelerator, minutes, limit", [("t4x2", 1200, "2 hours"), ("t4x2", 120, "2 hours"),
                                                         ("tpu", 300, "2 hours"), ("none", 1200, "9 hours")])
def test_a_time_that_kaggle_does_not_give_is_refused(tmp_path, accelerator, minutes, limit):
    with pytest.raises(KitError) as caught:
        builder.build(tmp_path / "k", KANNADA, accelerator=accelerator, minutes=minutes)
    message = caught.value.message
    assert message.startswith(f"--time-budget {minutes}m is too long") and f"after {limit} by the rules" in message
    assert f"{builder.MINUTES[accelerator]}m" in caught.value.fix and not (tmp_path / "k").exists()
    builder.build(tmp_path / "k", KANNADA, accelerator=accelerator, minutes=builder.MINUTES[accelerator])


def test_other_competitions_have_the_time_of_a_session(tmp_path):
    builder.build(tmp_path, DIGIT_RECOGNIZER, minutes=500)
    with pytest.raises(KitError, match=r"after 12 hours, and a kernel"):
        builder.build(tmp_path, DIGIT_RECOGNIZER, minutes=1200)
    with pytest.raises(KitError, match="after 9 hours, and"):
        builder.build(tmp_path, DIGIT_RECOGNIZER, accelerator="tpu", minutes=600)


def test_the_command_says_how_long_the_kernel_takes_and_that_it_has_no_user(tmp_path, monkeypatch):
    monkeypatch.setattr("kit.kaggle.credentials.user_name", lambda: None)
    words = ["build", "--out", str(tmp_path)]
    said = CliRunner().invoke(commands, words).output
    assert "done within 110 minutes on Kaggle" in said and "not pushed" in said and "--user NAME" in said
    # A bare number is in seconds, which few mean
    said = CliRunner().invoke(commands, [*words, "--user", "me", "--time-budget", "20"]).output
    assert "done within 20 seconds on Kaggle" in said and "--user" not in said


@pytest.mark.parametrize("user", ["a/b", "a b", "a\nb", "\udcff", "x" * 10_000, "../x"])
def test_a_name_that_no_account_has_is_refused(tmp_path, user):
    with pytest.raises(KitError, match="cannot be the name of a Kaggle account"):
        builder.build(tmp_path / "kernel", KANNADA, user)
    assert not (tmp_path / "kernel").exists()


@pytest.mark.parametrize("words, message, fix", [
    (["--run", "a-run"], "--run a-run is for a kernel that predicts", "add --mode predict"),
    (["--mode", "predict", "--run", "a-run", "--model", "cnn"],
     "--model: a predict kernel trains nothing", "leave --model out"),
    (["--mode", "predict", "--run", "a-run", "--epochs", "3", "--folds", "5", "--seed", "0"],
     "--folds, --epochs, --seed: a predict kernel", "leave --folds, --epochs, --seed out"),
    (["--mode", "predict", "--run", "a-run", "--seeds", "2"], "--seeds: a predict kernel", "leave --seeds out"),
    (["--mode", "predict", "--run", "a-run", "--competition", "digit-recognizer"],
     "was trained for kannada-mnist, not for digit-recognizer", "build it with --competition kannada-mnist")])
def test_what_the_mode_would_ignore_is_refused(tmp_path, run, words, message, fix):
    (run / "folds.csv").touch()
    words = ["build", "--out", str(tmp_path / "k"), "--runs-dir", str(run.parent), *words]
    result = CliRunner().invoke(commands, words)
    assert isinstance(result.exception, KitError)
    assert message in result.exception.message and fix in result.exception.fix
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize("blocked", ["kernel.py", "kernel-metadata.json", "kernel.ipynb", "weights"])
def test_a_refused_build_leaves_the_folder_as_it_was(tmp_path, blocked):
    builder.build(tmp_path / "k", KANNADA, "me", kind="script" if blocked == "kernel.ipynb" else "notebook")
    path = tmp_path / "k" / blocked
    if path.is_file():
        path.unlink()
    path.write_text("a file") if blocked == "weights" else path.mkdir()
    before = {each: each.read_bytes() for each in (tmp_path / "k").rglob("*") if each.is_file()}
    with pytest.raises(KitError, match=f"cannot write .*{blocked}: there is a f.* of that name"):
        builder.build(tmp_path / "k", KANNADA, "me", kind="script")
    assert {each: each.read_bytes() for each in (tmp_path / "k").rglob("*") if each.is_file()} == before


def test_changing_the_kind_leaves_one_code_file(tmp_path):
    builder.build(tmp_path, KANNADA, kind="script")
    (tmp_path / "notes.txt").write_text("mine")
    builder.build(tmp_path, KANNADA, kind="notebook")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernel-metadata.json", "kernel.ipynb", "notes.txt"]


@pytest.mark.parametrize("kind", ["script", "notebook"])
def test_the_settings_can_be_read_back_from_the_code_file(tmp_path, kind):
    folder = builder.build(tmp_path, KANNADA, kind=kind, models=("cnn",), minutes=90)
    settings = template.parse_settings((folder / builder.KINDS[kind]).read_text())
    assert (settings["models"], settings["minutes"], settings["epochs"]) == (["cnn"], 90, None)


@pytest.mark.parametrize("code", ["", "print(1)", "SETTINGS = make()", "SETTINGS = [1]", "{}", '{"cells": 3}',
                                  '{"cells": [{"cell_type": "code", "source": ["!ls"]}]}', "x = ("])
def test_the_code_of_others_has_no_settings(code):
    assert template.parse_settings(code) == {}


def test_own_files_lie_beside_the_packed_kit_which_finds_them(tmp_path):
    own = {"my_model.py": "ಎರಡು = 2\n", "mine.toml": 'slug = "mine"\n'}
    zipfile.ZipFile(io.BytesIO(builder.pack_source(own))).extractall(tmp_path)
    code = "from kit.kernel.builder import packed_own_files; print(packed_own_files())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, check=True,
                          capture_output=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert ast.literal_eval(done.stdout) == own
    assert builder.packed_own_files() == {}  # a kit that no kernel has unpacked


OWN = "from keras import layers\ndef build(): return layers.Flatten()\ndef bar(images, numbers): return images\n"


def test_a_model_of_one_s_own_is_tried_and_packed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "my_model.py").write_text(OWN)
    words = ["--model", "mlp,more/my_model.py:build", "--augment", "more/my_model.py:bar"]
    result = CliRunner().invoke(commands, ["build", *words])
    assert result.exit_code == 0, result.output
    code = (tmp_path / "kernel" / "kernel.py").read_text()
    settings = template.parse_settings(code)
    assert settings["models"] == ["mlp", "my_model-build"] and settings["augment"] == "my_model.py:bar"
    packed = zipfile.ZipFile(io.BytesIO(base64.b64decode(code.partition('SOURCE = """')[2].partition('"""')[0])))
    assert packed.read("own_files/my_model.py").decode() == OWN
    before = contents(tmp_path / "kernel")
    (tmp_path / "more" / "my_model.py").write_text(OWN.replace("layers.Flatten()", "[]"))
    result = CliRunner().invoke(commands, ["build", *words])
    assert "my_model.py:build returned an empty list" in result.exception.message
    assert contents(tmp_path / "kernel") == before


def test_the_packed_source_is_checked_and_is_the_one_that_runs(tmp_path):
    code = (builder.build(tmp_path, KANNADA) / "kernel.py").read_text()
    probe = code[:code.rindex("if __name__")] + "import sys\nsys.path.insert(0, unpack())\n"
    probe += "import kit\nprint(kit.__file__)\n"
    (tmp_path / "probe.py").write_text(probe)
    done = subprocess.run([sys.executable, "probe.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "/kit-" in done.stdout
    start = probe.index('SOURCE = """') + 40
    (tmp_path / "damaged.py").write_text(probe[:start] + ("B" if probe[start] == "A" else "A") + probe[start + 1:])
    done = subprocess.run([sys.executable, "damaged.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "the kit's source in this file is damaged" in done.stderr


# -- weights --------------------------------------------------------------------------------------------------------


def done(key):
    """The done.json of a fold."""
    model, seed, fold = key.split("/")
    job = FoldJob(model, int(seed[5:]), int(fold[5:]), 1, 8, "float32", 1)
    return {**dict.fromkeys(NUMBERS, 0), "val_accuracy": 0.9, "job": asdict(job)}


@pytest.fixture
def run(tmp_path):
    """A run folder with two trained folds of a model, one of the baseline."""
    folder = tmp_path / "runs" / "a-run"
    write_json(folder / "config.json", {"config": {"models": ["cnn"], "n_folds": 2}})
    for key in ("cnn/seed_0/fold_0", "cnn/seed_0/fold_1", "mlp/seed_0/fold_0"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("config.json", key)
            archive.writestr("model.weights.h5", np.arange(100).tobytes())
        write_bytes(folder / key / "model.keras", buffer.getvalue())
        write_json(folder / key / "done.json", done(key))
    return folder


def test_predict_mode_takes_the_weights_along_as_a_flat_dataset(tmp_path, run):
    folder = builder.build(tmp_path / "k", KANNADA, user="someone", mode="predict", run=run)
    assert json.loads((folder / "kernel-metadata.json").read_text())["dataset_sources"] == [
        "someone/kannada-mnist-kit-weights"]
    assert sorted(path.name for path in (folder / "weights").iterdir()) == [
        "cnn-seed_0-fold_0.keras", "cnn-seed_0-fold_1.keras", "config.json", "dataset-metadata.json", "manifest.json"]
    metadata = json.loads((folder / "weights" / "dataset-metadata.json").read_text())
    assert metadata["id"] == "someone/kannada-mnist-kit-weights"
    assert slugify(metadata["title"]) == "kannada-mnist-kit-weights"
    assert 6 <= len(metadata["title"]) <= 50
    digest = hashlib.sha256((folder / "weights" / "manifest.json").read_bytes()).hexdigest()
    assert f'"manifest_sha256": "{digest}"' in (folder / "kernel.py").read_text()
    first = contents(folder)
    assert contents(builder.build(tmp_path / "k", KANNADA, user="someone", mode="predict", run=run)) == first


def test_training_again_leaves_no_weights_behind(tmp_path, run):
    builder.build(tmp_path / "k", KANNADA, mode="predict", run=run)
    builder.build(tmp_path / "k", KANNADA)
    assert not (tmp_path / "k" / "weights").exists()


def test_a_run_without_a_trained_fold_is_refused_and_leaves_the_folder_as_it_was(tmp_path, run):
    folder = builder.build(tmp_path / "k", KANNADA)
    before = contents(folder)
    for done in run.glob("cnn/*/*/done.json"):
        done.unlink()
    with pytest.raises(KitError, match="2 of 2 folds are not trained"):
        builder.build(folder, KANNADA, mode="predict", run=run)
    write_json(run / "config.json", {"config": {"models": ["cnn"], "n_folds": 2, "time_budget": 9.0}})
    with pytest.raises(KitError, match="no trained fold of cnn"):
        builder.build(folder, KANNADA, mode="predict", run=run)
    assert contents(folder) == before


@pytest.mark.parametrize("against", [False, True])
def test_a_run_without_all_of_its_folds_is_refused_with_the_command_that_trains_them(
        tmp_path, run, against):
    (run / "cnn/seed_0/fold_1/done.json").unlink()
    if against:
        write_json(run / "against.json", {})
        write_json(run / "config.json",
                   {"config": {"models": ["cnn"], "n_folds": 2, "time_budget": 9.0}})
    with pytest.raises(KitError, match="a-run is partial: 1 of 2 folds is not trained") as caught:
        builder.build(tmp_path / "k", KANNADA, mode="predict", run=run)
    assert f"kit cv --resume --run a-run --runs-dir {run.parent}" in caught.value.fix
    assert ("--against" in caught.value.message) == against and not (tmp_path / "k").exists()


def test_of_a_run_that_its_time_budget_cut_it_is_said(tmp_path, run):
    write_json(run / "config.json",
               {"config": {"models": ["cnn"], "n_folds": 5, "time_budget": 9.0}})
    (run / "folds.csv").touch()
    words = ["build", "--out", str(tmp_path / "k"), "--runs-dir", str(run.parent), "--mode",
             "predict", "--run", "a-run", "--user", "me"]
    said = CliRunner().invoke(commands, words).output
    assert "a-run is partial: 3 of 5 folds are not trained" in said and "--resume" in said
    assert (tmp_path / "k" / "weights" / "cnn-seed_0-fold_1.keras").is_file()
    told = json.loads(CliRunner().invoke(commands, [*words, "--json"]).output)
    assert len(told["notes"]) == 1


def test_models_of_the_split_harder_are_not_packed(tmp_path, run):
    write_json(run / "config.json",
               {"config": {"models": ["cnn"], "n_folds": 2, "split": "harder"}})
    with pytest.raises(KitError, match=r"a-run: --split harder .* not to be handed in"):
        builder.build(tmp_path / "k", KANNADA, mode="predict", run=run)
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize("unzipped", [False, True], ids=["as uploaded", "unzipped by Kaggle"])
def test_weights_come_out_as_a_run_again(tmp_path, run, unzipped):
    digest = weights.pack(run, tmp_path / "w", "someone/k-weights")
    if unzipped:
        for path in list((tmp_path / "w").glob("*.keras")):
            packed = path.rename(path.with_suffix(".zip"))
            zipfile.ZipFile(packed).extractall(path)
            packed.unlink()
    manifest = weights.unpack(tmp_path / "w", tmp_path / "out", digest)
    assert manifest["run"] == "a-run"
    assert (tmp_path / "out" / "config.json").read_bytes() == (run / "config.json").read_bytes()
    if not unzipped:
        for k in (0, 1):
            key = f"cnn/seed_0/fold_{k}/model.keras"
            assert (tmp_path / "out" / key).read_bytes() == (run / key).read_bytes()
    fold = tmp_path / "out/cnn/seed_0/fold_1"
    assert json.loads((fold / weights.TRAINED).read_text()) == done("cnn/seed_0/fold_1")
    assert weights.model_file(fold) == fold / "model.keras"


@pytest.mark.parametrize("name", ["cnn-seed_0-fold_0.keras", "config.json", "manifest.json"])
def test_damaged_weights_are_refused(tmp_path, run, name):
    digest = weights.pack(run, tmp_path / "w", "someone/k-weights")
    data = bytearray((tmp_path / "w" / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "w" / name).write_bytes(bytes(data))
    with pytest.raises(KitError, match=f"{name} is damaged, or of another version"):
        weights.unpack(tmp_path / "w", tmp_path / "out", digest)


@pytest.mark.parametrize("name", ["cnn-seed_0-fold_0.keras", "config.json"])
def test_missing_weights_are_named(tmp_path, run, name):
    digest = weights.pack(run, tmp_path / "w", "someone/k-weights")
    (tmp_path / "w" / name).unlink()
    with pytest.raises(KitError, match=f"the dataset of the weights lacks {name}"):
        weights.unpack(tmp_path / "w", tmp_path / "out", digest)
