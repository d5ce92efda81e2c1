"""Artifacts are there whole or not at all, and damage is noticed."""

import errno
import json
import multiprocessing
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit.core import os_errors, run_folder, storage
from kit.core.errors import KitError


def test_round_trips(tmp_path):
    probs = np.random.default_rng(0).random((5, 10)).astype("float32")
    storage.write_npz(tmp_path / "a.npz", row=np.arange(5), probs=probs)
    storage.write_json(tmp_path / "a.json", {"n": np.int64(3), "name": "೦", "list": np.arange(2)})
    storage.write_csv(tmp_path / "a.csv", pd.DataFrame({"x": [1, 2]}))
    np.testing.assert_array_equal(storage.read_npz(tmp_path / "a.npz", "row", "probs")["probs"], probs)
    assert storage.read_json(tmp_path / "a.json") == {"n": 3, "name": "೦", "list": [0, 1]}
    assert (tmp_path / "a.csv").read_bytes() == b"x\n1\n2\n"
    assert storage.read_csv(tmp_path / "a.csv")["x"].tolist() == [1, 2]


@pytest.mark.parametrize("position", [0, 30, -1])
def test_one_flipped_bit_is_noticed(tmp_path, position):
    path = tmp_path / "a.npz"
    storage.write_npz(path, probs=np.zeros((4, 10), "float32"))
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(KitError, match=r"a\.npz is damaged"):
        storage.read_npz(path, "probs")


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    storage.write_json(path, {"old": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KitError, match="No space left on device") as caught:
        storage.write_json(path, {"new": 1})
    assert "--resume" in caught.value.fix
    monkeypatch.undo()
    assert storage.read_json(path) == {"old": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", storage.CHECKSUMS]


def test_killed_between_checksum_and_rename_the_old_file_is_still_good(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    storage.write_json(path, {"old": 1})
    replace = Path.replace

    def die_before_the_artifact(source, target):
        if str(target).endswith("a.json"):
            raise KeyboardInterrupt
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", die_before_the_artifact)
    with pytest.raises(KeyboardInterrupt):
        storage.write_json(path, {"new": 1})
    monkeypatch.undo()
    assert storage.read_json(path) == {"old": 1}
    storage.write_json(path, {"newer": 1})
    assert storage.read_json(path) == {"newer": 1}


def test_npz_with_a_pickle_inside_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", probs=np.array([{"a": 1}], dtype=object))
    with pytest.raises(KitError, match="damaged"):
        storage.read_npz(tmp_path / "a.npz", "probs")


def test_npz_that_unpacks_to_more_than_any_artifact_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MAX_ARTIFACT_BYTES", 1 << 20)
    storage.write_npz(tmp_path / "a.npz", probs=np.zeros(1 << 20))
    with pytest.raises(KitError, match="unpacks to 8,388,"):
        storage.read_npz(tmp_path / "a.npz")


def test_missing_things_are_named(tmp_path):
    storage.write_npz(tmp_path / "a.npz", row=np.arange(2))
    with pytest.raises(KitError, match="no array named probs"):
        storage.read_npz(tmp_path / "a.npz", "row", "probs")
    with pytest.raises(KitError, match=r"b\.npz is missing"):
        storage.read_npz(tmp_path / "b.npz")


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\x00", '{"a": NaN}', "[1e999]"])
def test_json_that_is_none(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(KitError, match="damaged"):
        storage.read_json(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["{", "[]", '{"a.json": "abc"}'])
def test_a_damaged_table_of_checksums(tmp_path, text):
    storage.write_json(tmp_path / "a.json", {})
    (tmp_path / storage.CHECKSUMS).write_text(text)
    with pytest.raises(KitError, match="not a table of checksums"):
        storage.read_json(tmp_path / "a.json")


def test_nan_does_not_become_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("name", ["first", "cnn+mlp 2", "ಕನ್ನಡ", "auxiliary", "a.b"])
def test_run_names_that_are_fine(name):
    assert run_folder.check_run_name(name) == name


@pytest.mark.parametrize("name", ["", " ", "../x", "a/b", "..", ".hidden", "-x", "a\0b", "a\nb", "x" * 300, " a",
                                  "a\\b", "<script>", "a.", "aux", "NUL.1"])
def test_run_names_that_are_not(name):
    with pytest.raises(KitError, match="the name of a run"):
        run_folder.check_run_name(name)


def _hold(path, ready, done):
    with run_folder.RunFolder(path).lock():
        ready.set()
        done.wait(30)


def test_the_second_process_is_told_who_holds_the_run(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "run", ready, done))
    holder.start()
    try:
        assert ready.wait(30)
        run = run_folder.RunFolder(tmp_path / "run")
        with pytest.raises(KitError, match=f"in use by process {holder.pid}"), run.lock():
            pass
    finally:
        done.set()
        holder.join()
    with run_folder.RunFolder(tmp_path / "run").lock():
        assert "process" in (tmp_path / "run" / ".lock.holder").read_text()


def test_the_lock_sweeps_what_a_killed_writer_left(tmp_path):
    left = tmp_path / "mlp" / ".model.keras.abc.tmp"
    left.parent.mkdir()
    left.write_bytes(b"half")
    with run_folder.RunFolder(tmp_path).lock():
        assert not left.exists()


def test_the_lock_sweeps_what_a_killed_keras_left(tmp_path):
    left = tmp_path / "mlp" / ".model.abc.tmp" / "model.keras"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    with run_folder.RunFolder(tmp_path).lock():
        assert not left.parent.exists() and left.parent.parent.exists()


def test_checksums_are_plain_sha256(tmp_path):
    storage.write_text(tmp_path / "a.txt", "abc")
    recorded = json.loads((tmp_path / storage.CHECKSUMS).read_text())["a.txt"]
    assert recorded == ["ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]
    assert storage.sha256_file(tmp_path / "a.txt") == recorded[0]


def test_a_folder_of_the_users_gets_the_file_and_no_table(tmp_path):
    storage.write_text(tmp_path / "mine.html", "<p>", record=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.html"]


def test_a_table_that_is_somebody_elses_stands_in_nobodys_way(tmp_path):
    (tmp_path / storage.CHECKSUMS).write_text("mine")
    storage.write_text(tmp_path / "page.html", "<p>", record=False)
    assert (tmp_path / storage.CHECKSUMS).read_text() == "mine" and (tmp_path / "page.html").read_text() == "<p>"


def test_an_artifact_is_no_place_for_what_the_user_asks_for(tmp_path):
    storage.write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KitError, match="an artifact of the kit's own"):
        storage.write_text(tmp_path / "a.txt", "new", record=False)
    assert storage.read_text(tmp_path / "a.txt") == "old"


def test_an_npz_member_that_is_no_array_is_damage(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("row", b"x")
    with pytest.raises(KitError, match=r"not a readable \.npz"):
        storage.read_npz(tmp_path / "a.npz", "row")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(KitError, match="not a file"):
        storage.sha256_file(tmp_path / "a.csv")
    os.mkfifo(tmp_path / ".lock.holder")
    with run_folder.RunFolder(tmp_path).lock():
        pass


def test_a_nul_in_a_name_is_two_lines(tmp_path):
    with pytest.raises(KitError, match="cannot write into"), run_folder.RunFolder(tmp_path / "a\0b").lock():
        pass


def test_the_fix_of_a_damaged_fold_trains_it_again(tmp_path):
    for name in ("done.json", "val.npz"):
        (tmp_path / name).write_text("x")
    assert f"delete {tmp_path} and run" in storage.damaged(tmp_path / "val.npz", "cut").fix
    assert "delete it and run" in storage.damaged(tmp_path / "done.json", "cut").fix
    assert "--force" in storage.damaged(tmp_path / "config.json", "cut").fix


def test_only_what_a_run_made_is_made_again_with_resume(tmp_path):
    """No other command has that option: a damaged push.json once sent its user to `kit kernel push --resume`."""
    fold = tmp_path / "runs" / "a" / "mlp" / "seed_0" / "fold_0"
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "folds.csv").touch()
    assert storage.damaged(fold / "done.json", "cut").fix.endswith("with --resume")
    assert storage.damaged(tmp_path / "runs" / "a" / "oof.npz", "cut").fix.endswith("with --resume")
    fix = storage.damaged(tmp_path / "submissions" / "a" / "oof.npz", "cut").fix
    assert fix == "put the original file back, or delete it and run the command that makes it again"
    with pytest.raises(KitError, match="is missing") as caught:
        storage.read_bytes(tmp_path / "oof.npz")
    assert caught.value.fix == "put the original file back, or run the command that makes it again"
    with pytest.raises(KitError, match="cut") as caught, storage.fix_of_damage("ask"):
        raise storage.damaged(fold, "cut")
    assert caught.value.fix == "ask"


def test_json_that_does_not_say_what_is_wanted(tmp_path):
    storage.write_json(tmp_path / "a.json", {"config": 1})
    assert storage.read_json(tmp_path / "a.json", "config") == {"config": 1}
    with pytest.raises(KitError, match=r"a\.json is damaged: it does not say: data, code"):
        storage.read_json(tmp_path / "a.json", "config", "data", "code")
    storage.write_json(tmp_path / "a.json", ["config"])
    with pytest.raises(KitError, match="it does not say: config"):
        storage.read_json(tmp_path / "a.json", "config")


def test_a_folder_in_the_place_of_a_file_is_refused_and_nothing_recorded(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(KitError, match="Is a directory"):
        storage.write_text(tmp_path / "there", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]


def test_a_table_larger_than_any_of_the_kits_is_not_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MAX_CSV_BYTES", 10)
    (tmp_path / "folds.csv").write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(KitError, match="12 bytes, more than"):
        storage.read_csv(tmp_path / "folds.csv")


# -- what file systems do not have, or refuse -----------------------------------------------------------------------


def raises(number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize(("call", "numbers"), [
    ("chmod", (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EROFS)),
    ("fsync", (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS))])
def test_an_artifact_needs_neither_modes_nor_fsync(tmp_path, monkeypatch, call, numbers):
    for number in numbers:
        monkeypatch.setattr(os, call, raises(number))
        storage.write_json(tmp_path / "a.json", {"number": number})
        assert storage.read_json(tmp_path / "a.json") == {"number": number}


def test_an_fsync_that_failed_is_not_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", raises(errno.EIO))
    with pytest.raises(KitError, match="Input/output error") as caught:
        storage.write_json(tmp_path / "a.json", {})
    assert "the disk, or the connection to it, fails" in caught.value.fix


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EBUSY])
def test_a_mounted_file_is_written_in_its_place(tmp_path, monkeypatch, number):
    """`docker run -v ledger.csv:/data/ledger.csv`: nothing can be renamed onto it."""
    monkeypatch.setattr(storage, "RENAME_PAUSE", 0.0)
    (tmp_path / "a.txt").write_text("old")
    inode = (tmp_path / "a.txt").stat().st_ino
    monkeypatch.setattr(os, "replace", raises(number))
    monkeypatch.setattr(Path, "replace", lambda source, target: os.replace(source, target))
    storage.write_text(tmp_path / "a.txt", "new", record=False)
    assert (tmp_path / "a.txt").read_text() == "new" and (tmp_path / "a.txt").stat().st_ino == inode
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EBUSY, errno.ETXTBSY])
def test_a_file_that_a_scanner_has_open_for_a_moment_is_waited_for(tmp_path, monkeypatch, number):
    monkeypatch.setattr(storage, "RENAME_PAUSE", 0.0)
    replace, tries = Path.replace, []

    def busy_at_first(source, target):
        tries.append(target)
        if len(tries) < 3:
            raises(number)()
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", busy_at_first)
    storage.write_text(tmp_path / "a.txt", "new", record=False)
    assert (tmp_path / "a.txt").read_text() == "new" and len(tries) == 3


def test_a_file_moves_to_another_disk(tmp_path, monkeypatch):
    """data/kannada-mnist may be a link to a larger disk, or a mount."""
    (tmp_path / "new").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "new" / "a.csv").write_text("new")
    (tmp_path / "there" / "a.csv").write_text("old")
    replace = Path.replace

    def no_further_than_the_disk(source, target):
        return replace(source, target) if source.parent == target.parent else raises(errno.EXDEV)()

    monkeypatch.setattr(Path, "replace", no_further_than_the_disk)
    storage.move(tmp_path / "new" / "a.csv", tmp_path / "there" / "a.csv")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["new", "there", "there/a.csv"]
    assert (tmp_path / "there" / "a.csv").read_text() == "new"


@pytest.mark.parametrize(("number", "fix"), [
    (errno.ENOSPC, "free some space"), (errno.EDQUOT, "quota"), (errno.EROFS, "mounted read-only"),
    (errno.ENOENT, "missing, or was removed"), (errno.ENOTDIR, "a file is in the place"), (errno.EIO, "fails"),
    (errno.ENAMETOOLONG, "too long"), (errno.EMFILE, "ulimit -n"), (errno.EBUSY, "holds it"),
    (errno.ESTALE, "mounted anew"), (errno.ENOTCONN, "mount it again"), (errno.ENOLCK, "lock service"),
    (524, "cannot do this"), (errno.EINVAL, "does not take such a name"), (errno.ENOMEM, "memory"),
    (errno.EFBIG, "files of this size"), (errno.ENODEV, "local disk")])
def test_each_cause_has_its_own_fix(tmp_path, number, fix):
    error = os_errors.explain_os_error(OSError(number, os.strerror(number)), tmp_path / "a", "write")
    assert fix in error.fix and "writable" not in error.fix and "Unknown error" not in error.message


@pytest.mark.parametrize(("closed", "fix"), [
    ("folder", "make the folder writable (chmod u+wx '{0}'"), ("file", "make the file writable (chmod u+w '{0}/a'"),
    ("nothing", "its modes would allow it")])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_the_folder_is_to_be_made_writable_only_where_it_is_not(tmp_path, monkeypatch, closed, fix, number):
    (tmp_path / "a").touch()
    at_fault = {"folder": tmp_path, "file": tmp_path / "a"}.get(closed)
    monkeypatch.setattr(os, "access", lambda path, mode: path != at_fault)
    error = os_errors.explain_os_error(PermissionError(number, "no", str(tmp_path / "a")), tmp_path / "a", "write")
    assert error.fix.startswith(fix.format(tmp_path))
    missing = os_errors.explain_os_error(PermissionError(number, "no"), tmp_path / "b" / "c", "write")
    assert ("make the folder writable" in missing.fix) == (closed == "folder")


def test_what_may_not_be_read_is_no_folder_to_make_writable(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("{}")
    monkeypatch.setattr(Path, "read_bytes", raises(errno.EACCES))
    with pytest.raises(KitError) as caught:
        storage.read_json(tmp_path / "a.json")
    assert caught.value.fix.startswith("allow it, e.g. chmod u+r")


def test_a_file_that_is_open_on_windows_is_named_so(tmp_path):
    error = PermissionError(errno.EACCES, "The process cannot access the file")
    error.winerror = 32
    assert "another program has it open" in os_errors.explain_os_error(error, tmp_path / "a", "write").fix


def test_a_tree_is_copied_where_there_are_no_modes(tmp_path, monkeypatch):
    (tmp_path / "from" / "sub").mkdir(parents=True)
    (tmp_path / "from" / "sub" / "a").write_text("x")
    monkeypatch.setattr(os, "chmod", raises(errno.EPERM))
    storage.copy_tree(tmp_path / "from", tmp_path / "to")
    assert (tmp_path / "to" / "sub" / "a").read_text() == "x"
