"""The hash of the code that decides a fold's numbers."""

import shutil

import pytest

from kit.core import provenance


@pytest.fixture
def source(tmp_path):
    for name in provenance.HASHED_MODULES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(provenance.KIT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(("old", "new", "same"), [
    ("\nimport ", "\n# a remark\nimport ", True), ('"""', '"""Other words. ', True), ("\n\n\n", "\n\n\n\n", True),
    ("\n    return ", "\n    return not ", False)])
@pytest.mark.parametrize("name", ["training/fit.py", "training/models.py", "data/folds.py"])
def test_remarks_do_not_count_and_code_does(source, name, old, new, same):
    path = source / name
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    assert (provenance.code_hash(source) == provenance.code_hash()) is same


def test_where_a_block_ends_counts(source):
    path = source / "training" / "jobs.py"
    path.write_text("if a:\n    b()\n    c()\n", "utf-8")
    inside = provenance.code_hash(source)
    path.write_text("if a:\n    b()\nc()\n", "utf-8")
    assert provenance.code_hash(source) != inside
