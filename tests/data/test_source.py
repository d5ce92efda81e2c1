"""Data comes in whole and checked, or not at all; what is there stays; a sample is never taken for real data."""

import errno
import gzip
import io
import json
import os
import re
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kit.core.errors import KitError
from kit.core.progress import Progress
from kit.data import cache
from kit.data.competition import DIGIT_RECOGNIZER, KANNADA
from kit.data.source import DataFolder, download, find_data
from kit.data.table import read_table
from kit.rehearsal.hidden import write_with_hidden_test
from tests.data.tiny import TINY, write_folder


class Heard(Progress):
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member in sorted(folder.iterdir()):
            file.write(member, member.name)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and ".cache" not in path.parts}


@pytest.fixture
def given(tmp_path):
    return write_folder(tmp_path / "given")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    """The client's download, from a folder instead; returns the calls."""
    calls = []

    def fetch(slug, folder, progress, rules_url):
        calls.append((slug, rules_url))
        return zipped(write_folder(tmp_path / "on kaggle", seed=7), folder / f"{slug}.zip")

    monkeypatch.setattr("kit.kaggle.client.download_competition", fetch)
    return calls


@pytest.fixture
def sample(monkeypatch):
    """A sample of the tiny competition, whose digits nobody can draw."""
    monkeypatch.setattr("kit.data.sample.draw_sample",
                        lambda folder, competition: write_folder(folder, n_train=40, seed=9))


# -- where from -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "zip", "zip of zips"])
def test_from_a_path(given, root, tmp_path, kind):
    path = given
    if kind == "zip of zips":
        for member in list(given.iterdir()):
            with zipfile.ZipFile(f"{member}.zip", "w") as file:
                file.write(member, member.name)
            member.unlink()
    if kind != "folder":
        path = zipped(given, tmp_path / "tiny.zip")
    data = download(TINY, str(path), root)
    assert data.path == root / "tiny" and data.source == "path" and not data.is_sample and data.writer_block is None
    assert len(data.train()) == 200 and len(data.test()) == 5 and len(data.extra()) == 20
    manifest = json.loads((root / "tiny" / "manifest.json").read_text())
    assert manifest["competition"] == "tiny" and manifest["source"] == "path" and manifest["is_sample"] is False
    assert manifest["rows"] == {"train.csv": 200, "test.csv": 5, "extra.csv": 20, "sample_submission.csv": 5}
    assert set(manifest["sha256"]) == set(manifest["rows"]) and manifest["created"]
    assert data.sha256 == {name: manifest["sha256"][name] for name in ("train.csv", "test.csv", "extra.csv")}
    assert sorted(path.name for path in root.iterdir()) == ["tiny"]


def test_what_is_wrong_is_said_of_the_file_that_was_given(given, root):
    text = (given / "train.csv").read_text().splitlines()
    text[3] = text[3].replace(",", ",x", 1)
    (given / "train.csv").write_text("\n".join(text))
    with pytest.raises(KitError) as error:
        download(TINY, str(given), root)
    assert error.value.message.startswith(f"{given}/train.csv, line 4, column 'pixel0'")


def test_from_kaggle(root, kaggle):
    data = download(TINY, "kaggle", root)
    assert kaggle == [("tiny", TINY.rules_url)]
    assert data.source == "kaggle" and not data.is_sample and len(data.train()) == 200


def test_the_sample_says_so(root, sample):
    data = download(TINY, "sample", root)
    assert data.path == root / "tiny-sample" and data.source == "sample" and data.is_sample
    assert data.writer_block == 160 and len(data.train()) == 40


def test_the_drawn_sample_is_read_like_any_other(root):
    data = download(KANNADA, "sample", root)
    table = data.train()
    assert data.is_sample and len(table) % data.writer_block == 0 and len(table) >= 1000
    assert set(table.labels) == set(range(10)) and len(data.test()) and len(data.extra())
    np.testing.assert_array_equal(table.labels, np.arange(len(table)) % 10)


def test_there_is_no_sample_of_other_digits(root):
    with pytest.raises(KitError, match="no sample for digit-recognizer"):
        download(DIGIT_RECOGNIZER, "sample", root)
    assert not (root / "digit-recognizer-sample").exists()


def test_without_a_wish_credentials_decide(root, kaggle, sample, monkeypatch):
    assert download(TINY, None, root).is_sample and not kaggle
    monkeypatch.setattr("kit.data.source.has_credential", lambda: True)
    assert download(TINY, None, root).source == "kaggle" and len(kaggle) == 1


def test_without_a_wish_real_data_is_enough(given, root, sample):
    download(TINY, given, root)
    assert download(TINY, None, root).source == "path"


@pytest.mark.parametrize("account", [False, True])
def test_files_that_somebody_put_there_go_before_sample_and_download(given, root, kaggle, sample, monkeypatch, account):
    monkeypatch.setattr("kit.data.source.has_credential", lambda: account)
    shutil.copytree(given, root / TINY.slug)
    found = download(TINY, None, root)
    assert found.path == root / TINY.slug and not found.is_sample and not kaggle


def test_changed_data_is_not_passed_over_for_the_sample(given, root, sample):
    path = download(TINY, given, root).path / "train.csv"
    path.write_bytes(path.read_bytes().replace(b"7", b"8"))
    with pytest.raises(KitError, match=r"not the file that manifest\.json records"):
        download(TINY, None, root).train()


def test_a_damaged_manifest_is_made_again_with_its_data(root, sample):
    """Without it nobody knows how many rows of the sample are one writer's: it must not just be deleted."""
    data = download(TINY, "sample", root)
    (data.path / "manifest.json").write_text("{")
    (data.path / "checksums.json").unlink(missing_ok=True)
    with pytest.raises(KitError, match=r"manifest\.json is damaged") as caught:
        _ = find_data(TINY, root).is_sample
    assert "kit download --force --from sample --competition tiny" in caught.value.fix
    assert "--resume" not in caught.value.fix
    assert download(TINY, "sample", root, force=True).is_sample


@pytest.mark.parametrize("name", ["train.csv", "extra.csv", "sample_submission.csv", "manifest.json"])
def test_a_folder_in_the_place_of_a_file_replaces_nothing(given, root, name, tmp_path):
    there = download(TINY, given, root).path
    (there / name).unlink()
    (there / name).mkdir()
    before = {path: path.read_bytes() for path in there.rglob("*") if path.is_file()}
    with pytest.raises(KitError, match="a folder bears the name"):
        download(TINY, given, root, force=True)
    assert {path: path.read_bytes() for path in there.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["\0", "\ud800", "/dev/zero", "../train.csv"])
def test_a_manifest_that_names_other_files_is_not_followed(given, root, name):
    there = download(TINY, given, root).path
    manifest = json.loads((there / "manifest.json").read_text())
    (there / "checksums.json").unlink()
    (there / "manifest.json").write_text(json.dumps({**manifest, "sha256": {name: "x"}}))
    assert download(TINY, given, root).manifest["sha256"].keys() == manifest["sha256"].keys()


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_sample_stays_one_wherever_it_is_copied_from(root, sample, tmp_path, kind):
    first = download(TINY, "sample", root)
    path = first.path if kind == "folder" else zipped(first.path, tmp_path / "copy.zip")
    again = download(TINY, path, tmp_path / "other")
    assert again.path == tmp_path / "other" / "tiny-sample" and again.is_sample and again.writer_block == 160
    assert not (tmp_path / "other" / "tiny").exists()


# -- what goes first ------------------------------------------------------------------------------------------------


def test_real_data_goes_before_the_sample(given, root, sample):
    with pytest.raises(KitError, match="there is no data of tiny") as caught:
        find_data(TINY, root)
    assert "--from FOLDER" in caught.value.fix  # the kit draws no digits of two by three pixels
    with pytest.raises(KitError, match="there is no data of kannada-mnist") as caught:
        find_data(KANNADA, root)
    assert "--from sample" in caught.value.fix
    download(TINY, "sample", root)
    assert find_data(TINY, root).is_sample
    download(TINY, given, root)
    assert not find_data(TINY, root).is_sample


def test_files_put_there_by_hand_are_real_data(root):
    write_folder(root / "tiny", extra=False)
    data = find_data(TINY, root)
    assert data.source == "path" and not data.is_sample and data.extra() is None
    assert set(data.sha256) == {"train.csv", "test.csv"}


def test_a_folder_called_sample_is_one_even_without_its_manifest(root, sample):
    data = download(TINY, "sample", root)
    (data.path / "manifest.json").unlink()
    assert find_data(TINY, root).is_sample


# -- what is there --------------------------------------------------------------------------------------------------


def test_what_is_there_and_intact_is_not_fetched_again(root, kaggle):
    download(TINY, "kaggle", root)
    heard = Heard()
    download(TINY, "kaggle", root, progress=heard)
    assert len(kaggle) == 1 and any("there and intact" in text for text in heard.said)
    download(TINY, "kaggle", root, force=True)
    assert len(kaggle) == 2


@pytest.mark.parametrize("name", ["train.csv", "test.csv", "extra.csv", "sample_submission.csv", "manifest.json"])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_what_is_not_intact_is_fetched_again(root, kaggle, name, how):
    path = download(TINY, "kaggle", root).path / name
    good = contents(root)
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3] + b"9\n")
    data = download(TINY, "kaggle", root)
    assert len(kaggle) == 2 and contents(root).keys() == good.keys() and len(data.train()) == 200


def test_another_zip_is_another_source_and_the_same_one_is_not(given, root, tmp_path):
    download(TINY, given, root)
    before = contents(root)
    download(TINY, given, root)
    assert contents(root) == before
    other = write_folder(tmp_path / "other", seed=5)
    download(TINY, other, root)
    assert (root / "tiny" / "train.csv").read_bytes() == (other / "train.csv").read_bytes()


def test_data_in_the_place_itself_can_be_checked_in(root):
    folder = write_folder(root / "tiny")
    assert download(TINY, folder, root).manifest["rows"]["train.csv"] == 200


def test_a_file_changed_behind_the_manifest_is_refused(given, root):
    data = download(TINY, given, root)
    text = (data.path / "train.csv").read_text()
    (data.path / "train.csv").write_text(text.replace("\n0,", "\n1,", 1))
    with pytest.raises(KitError, match=r"not the file that manifest\.json records") as caught:
        data.train()
    assert "kit download --force" in caught.value.fix
    assert len(data.test()) == 5


def test_an_extra_file_that_the_manifest_does_not_know_is_not_used(root, tmp_path):
    data = download(TINY, write_folder(tmp_path / "given", extra=False), root)
    write_folder(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "extra.csv", data.path)
    with pytest.raises(KitError, match="not the file that"):
        data.extra()


@pytest.mark.parametrize(("text", "pattern"), [("{", "damaged"), ("[]", "not a manifest"), ("{}", "not a manifest"),
                                               ('{"sha256": {}, "competition": "tiny", "is_sample": "no"}', "not a"),
                                               ('{"sha256": {}, "competition": "tiny", "writer_block": -5}', "not a"),
                                               ('{"sha256": {}, "competition": "tiny", "writer_block": 1.5}', "not a"),
                                               ('{"sha256": {}, "competition": "mnist"}', "holds 'mnist', not tiny")])
def test_a_bad_manifest_is_refused(given, root, text, pattern):
    data = download(TINY, given, root)
    (data.path / "checksums.json").unlink()
    (data.path / "manifest.json").write_text(text)
    for ask in (lambda: data.is_sample, data.train):
        with pytest.raises(KitError, match=pattern):
            ask()


# -- what goes wrong ------------------------------------------------------------------------------------------------


def spoil(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))


BAD = {
    "text in train": (lambda folder: spoil(folder, "train.csv", "\n1,", "\nx,"),
                      "train.csv, line 3, column 'label': 'x'"),
    "256 in extra": (lambda folder: spoil(folder, "extra.csv", "\n1,", "\n256,"), "extra.csv, line 3, column 'label'"),
    "id twice": (lambda folder: spoil(folder, "test.csv", "\n1,", "\n0,"),
                 "test.csv, line 3: the id '0' is there already"),
    "no train": (lambda folder: (folder / "train.csv").unlink(), "has no train.csv"),
    "no test": (lambda folder: (folder / "test.csv").unlink(), "has no test.csv"),
    "empty test": (lambda folder: (folder / "test.csv").write_text(""), "test.csv is empty"),
    "other ids": (lambda folder: spoil(folder, "sample_submission.csv", "\n3,", "\n9,"),
                  "sample_submission.csv, line 5: the ids are not those of test.csv"),
    "fewer ids": (lambda folder: spoil(folder, "sample_submission.csv", "4,0\n", ""), "sample_submission.csv, line 6"),
    "more ids": (lambda folder: spoil(folder, "sample_submission.csv", "4,0\n", "4,0\n5,0\n"),
                 "submission.csv, line 7"),
    "other columns": (lambda folder: spoil(folder, "sample_submission.csv", "id", "Id"), "column missing: 'id'"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_earlier_data_stays_when_the_new_one_is_bad(given, root, tmp_path, name, kind):
    download(TINY, given, root)
    before = contents(root)
    bad = write_folder(tmp_path / "bad", seed=3)
    change, pattern = BAD[name]
    change(bad)
    with pytest.raises(KitError, match=pattern):
        download(TINY, bad if kind == "folder" else zipped(bad, tmp_path / "bad.zip"), root)
    assert contents(root) == before
    assert sorted(path.name for path in root.iterdir()) == ["tiny"]
    assert len(find_data(TINY, root).train()) == 200


def test_what_the_new_data_lacks_goes(given, root, tmp_path):
    assert download(TINY, given, root).extra() is not None
    folder = download(TINY, write_folder(tmp_path / "less", seed=3, extra=False), root)
    assert folder.extra() is None and set(folder.sha256) == {"train.csv", "test.csv"}


def test_earlier_data_stays_when_kaggle_fails(given, root, monkeypatch):
    download(TINY, given, root)
    before = contents(root)

    def fail(slug, folder, progress, rules_url):
        (folder / "tiny.zip").write_text("half a")
        raise KitError("cannot download: offline", "check the network")

    monkeypatch.setattr("kit.kaggle.client.download_competition", fail)
    with pytest.raises(KitError, match="offline"):
        download(TINY, "kaggle", root, force=True)
    assert contents(root) == before and sorted(path.name for path in root.iterdir()) == ["tiny"]


@pytest.mark.parametrize("form", ["zipped once more", "in a folder", "without the files that may be missing"])
def test_kaggles_zip_in_each_of_its_forms(root, tmp_path, monkeypatch, form):
    def fetch(slug, folder, progress, rules_url):
        with zipfile.ZipFile(folder / f"{slug}.zip", "w") as outer:
            for path in write_folder(tmp_path / "on kaggle").iterdir():
                if form == "zipped once more":
                    inner = io.BytesIO()
                    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
                        archive.writestr(path.name, path.read_bytes())
                    outer.writestr(f"{path.name}.zip", inner.getvalue())
                elif form == "in a folder" or path.name in (TINY.train, TINY.test):
                    outer.write(path, f"data/{path.name}" if form == "in a folder" else path.name)
        return folder / f"{slug}.zip"

    monkeypatch.setattr("kit.kaggle.client.download_competition", fetch)
    data = download(TINY, "kaggle", root)
    there = {path.name for path in data.path.glob("*.csv")}
    assert there == ({TINY.train, TINY.test} if form.startswith("without") else set(TINY.files))
    assert data.source == "kaggle" and len(data.train()) == 200
    assert sorted(path.name for path in root.iterdir()) == ["tiny"]


@pytest.mark.parametrize("damage, words", [
    (lambda text: text[:-30], "tiny.zip from Kaggle is cut off"),
    (lambda text: text.replace(b"train.csv", b"traim.csv"), "tiny.zip from Kaggle has no train.csv; it holds"),
    (lambda text: text.replace(b"train.csv", b"../in.csv"), "names a place outside"),
])
def test_a_zip_of_kaggles_that_is_not_right_leaves_nothing(root, tmp_path, monkeypatch, damage, words):
    def fetch(slug, folder, progress, rules_url):
        path = zipped(write_folder(tmp_path / "on kaggle"), folder / f"{slug}.zip")
        path.write_bytes(damage(path.read_bytes()))
        return path

    monkeypatch.setattr("kit.kaggle.client.download_competition", fetch)
    with pytest.raises(KitError, match=words) as caught:
        download(TINY, "kaggle", root)
    assert caught.value.fix.startswith("run the same command again, nothing was replaced")
    assert list(root.iterdir()) == []


def test_without_credentials_kaggle_says_how(root):
    with pytest.raises(KitError, match="no Kaggle credential") as caught:
        download(KANNADA, "kaggle", root)
    assert "; or kit download --from sample --data-dir " in caught.value.fix
    assert caught.value.fix.endswith(" for drawn digits, without an account")
    with pytest.raises(KitError, match="no Kaggle credential") as caught:
        download(DIGIT_RECOGNIZER, "kaggle", root)
    assert "; or kit download --from keras --competition digit-recognizer --data-dir " in caught.value.fix \
        and "sample" not in caught.value.fix


@pytest.mark.parametrize("path", ["nowhere", "nowhere/at/all.zip", "a\0b", "", "Kaggle"])
def test_a_path_that_is_nothing(root, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KitError):
        download(TINY, path, root)


@pytest.mark.parametrize("address", ["https://www.kaggle.com/c/tiny/data", "https://example.org/mnist.npz"])
def test_an_address_is_no_path(root, address):
    with pytest.raises(KitError, match="is an address, not a path"):
        download(TINY, address, root)


def test_a_csv_is_no_data_folder(given, root):
    with pytest.raises(KitError, match=r"train\.csv is not a zip"):
        download(TINY, given / "train.csv", root)


def test_a_hostile_zip_writes_nothing_outside(root, given, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for member in given.iterdir():
            file.write(member, member.name)
        file.writestr("../../evil.csv", "x")
    (tmp_path / "evil.zip").write_bytes(buffer.getvalue())
    with pytest.raises(KitError, match="names a place outside"):
        download(TINY, tmp_path / "evil.zip", root)
    assert not list(tmp_path.rglob("evil.csv")) and not list(root.iterdir())


def test_a_move_that_fails_half_way_is_noticed(given, root, tmp_path, monkeypatch):
    """The manifest comes last, so a mixture of two sets is never read as either."""
    data = download(TINY, given, root)
    replace = Path.replace

    def fail(self, target):
        if self.name == "train.csv":
            raise OSError(5, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KitError, match="Input/output error"):
        download(TINY, write_folder(tmp_path / "other", seed=5), root)
    with pytest.raises(KitError, match="half replaced"):
        data.extra()


def test_a_root_that_cannot_be_a_folder(given, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KitError, match="cannot write"):
        download(TINY, given, tmp_path / "file")


def test_notes_are_told(root, tmp_path):
    heard = Heard()
    download(TINY, write_folder(tmp_path / "given", n_train=40), root, progress=heard)
    assert "train.csv has 40 rows; the competition's own has 200" in heard.said


# -- packed files -----------------------------------------------------------------------------------------------------


def packed(path: Path, kind: str) -> None:
    """Put a CSV file's zip or gzip in its place, as Kaggle's page serves single files."""
    data = path.read_bytes()
    if kind == "gz":
        Path(f"{path}.gz").write_bytes(gzip.compress(data))
    else:
        with zipfile.ZipFile(f"{path}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, path.name)
    path.unlink()


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_packed_files_put_there_by_hand_are_read_as_they_are(root, kind):
    write_folder(root / "tiny")
    plain = find_data(TINY, root)
    wanted, pixels = plain.sha256, plain.train().pixels.copy()
    for name in ("train.csv", "test.csv", "extra.csv"):
        packed(root / "tiny" / name, kind)
    found = find_data(TINY, root)
    np.testing.assert_array_equal(found.train().pixels, pixels)
    assert len(found.test()) == 5 and len(found.extra()) == 20 and found.train().notes == ()
    assert found.sha256 == wanted  # a run of the plain files goes on with the packed ones
    assert download(TINY, None, root).path == root / "tiny"


def test_packed_files_are_laid_out_plain_for_a_rehearsal(root, tmp_path):
    write_folder(root / "tiny")
    plain = {name: (root / "tiny" / name).read_bytes() for name in ("train.csv", "extra.csv")}
    for name in ("train.csv", "test.csv", "extra.csv"):
        packed(root / "tiny" / name, "zip")
    write_with_hidden_test(root / "tiny", tmp_path / "mounted", TINY)
    assert (tmp_path / "mounted" / "extra.csv").read_bytes() == plain["extra.csv"]
    assert plain["train.csv"].startswith((tmp_path / "mounted" / "train.csv").read_bytes())
    assert len(read_table(tmp_path / "mounted" / "test.csv", TINY, labelled=False))


def test_a_packed_file_is_known_again_by_its_cache_and_not_by_another_s(root):
    write_folder(root / "tiny")
    packed(root / "tiny" / "train.csv", "zip")
    path = root / "tiny" / "train.csv.zip"
    first = read_table(path, TINY, labelled=True)
    os.utime(path, ns=(0, 0))
    assert read_table(path, TINY, labelled=True).sha256 == first.sha256
    write_folder(root / "other", seed=1)
    packed(root / "other" / "train.csv", "zip")
    (root / "other" / "train.csv.zip").replace(path)
    assert read_table(path, TINY, labelled=True).sha256 != first.sha256


def test_what_is_missing_or_bad_is_to_be_had_by_the_command_that_brought_it(given, root, sample):
    download(TINY, given, root)
    (root / "tiny" / "test.csv").unlink()
    with pytest.raises(KitError, match=r"there is no test\.csv in") as caught:
        find_data(TINY, root).test()
    again = f"kit download --force --from {given} --competition tiny --data-dir {root}"
    assert caught.value.fix == f"get it again: {again}"
    with pytest.raises(KitError) as caught:
        find_data(TINY, root / "none")
    assert caught.value.fix == (
        f"kit download --competition tiny --data-dir {root}/none; or kit download --from FOLDER --competition tiny "
        f"--data-dir {root}/none for files that you have: a folder, a zip or an .npz")


@pytest.mark.parametrize(("spoil", "words", "fix"), [
    (lambda folder: (folder / "train.csv").rename(folder / "trian.csv"), "there is no file .*train.csv",
     "did you mean .*trian"),
    (lambda folder: (folder / "train.csv").unlink(), "there is no file .*train.csv", "check the path"),
    (lambda folder: shutil.rmtree(folder), "there is no folder .*given", "check the path"),
    (lambda folder: (folder / "train.csv").replace(folder / "x") and (folder / "train.csv").symlink_to("gone.csv"),
     "is a link to gone.csv, which is not there", "put that file there"),
])
def test_why_a_file_is_not_there(given, spoil, words, fix):
    for name in ("test.csv", "extra.csv", "sample_submission.csv"):
        (given / name).unlink()
    spoil(given)
    with pytest.raises(KitError, match=words) as caught:
        read_table(given / "train.csv", TINY, labelled=True)
    assert re.search(fix, caught.value.fix)


@pytest.mark.parametrize(("code", "fix"), [
    (errno.EIO, "does not answer: mount it again"), (errno.ESTALE, "does not answer"),
    (errno.ENOTDIR, "check the path"), (errno.EACCES, "chmod u\\+r"), (errno.EMFILE, "see whether another program")])
def test_why_a_file_cannot_be_read(given, monkeypatch, code, fix):
    monkeypatch.setattr(Path, "open", lambda self, mode="r": (_ for _ in ()).throw(OSError(code, os.strerror(code))))
    with pytest.raises(KitError, match=r"train\.csv") as caught:
        read_table(given / "train.csv", TINY, labelled=True)
    assert re.search(fix, caught.value.fix)


def test_data_on_another_disk_than_its_scratch_folder(tmp_path, monkeypatch):
    """data/<slug> may be a link to a larger disk, or mounted into a container: nothing can be renamed into it."""
    given, larger = write_folder(tmp_path / "given"), tmp_path / "larger"
    larger.mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / TINY.slug).symlink_to(larger)
    replace = Path.replace

    def within_a_disk(self, target):
        if (Path(self).resolve().is_relative_to(larger)) != Path(target).resolve().is_relative_to(larger):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", within_a_disk)
    download(TINY, given, tmp_path / "data")
    assert (larger / "train.csv").read_bytes() == (given / "train.csv").read_bytes()
    assert find_data(TINY, tmp_path / "data").test().ids.size == 5 and not list(larger.glob(".*.tmp"))


def test_a_table_is_read_once_in_a_process_until_its_file_changes(tmp_path, monkeypatch):
    data, now = DataFolder(write_folder(tmp_path), TINY), time.time_ns()
    monkeypatch.setattr(cache.time, "time_ns", lambda: now + 10**10)  # so old that another change has another stamp
    train = data.train()
    assert data.train() is train and DataFolder(tmp_path, TINY).train() is train
    lines = (tmp_path / "train.csv").read_bytes().splitlines(keepends=True)
    (tmp_path / "train.csv").write_bytes(b"".join([*lines, lines[1]]))
    assert len(data.train()) == len(train) + 1
    monkeypatch.undo()
    assert data.test() is not data.test()  # it changed a moment ago
