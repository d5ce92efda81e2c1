"""`kit doctor` of the kit that is packed into a kernel, in a rehearsal, which is as near to Kaggle as tests come."""

import pytest

from kit.data.competition import KANNADA
from kit.kernel import builder
from kit.rehearsal.rehearse import rehearse
from tests.rehearsal.kernels import with_doctor


@pytest.mark.slow
def test_it_says_what_the_session_has(tmp_path, data, sandbox_kind):
    folder = builder.build(tmp_path / "kernel", KANNADA, user="someone")
    with_doctor(folder / "kernel.py")
    lines = []
    rehearse(folder, data, say=lines.append)
    found = {line[5:18].strip(): (line[:5].strip(), line[18:]) for line in lines
             if line[:5].strip() in ("ok", "note", "bad")}
    root = "/kaggle" if sandbox_kind == "namespaces" else ""
    assert found["Kaggle"][0] == "ok"
    assert "the run of a saved version, rehearsed on another machine" in found["Kaggle"][1]
    assert found["internet"] == ("ok", "off, as a submission to this competition must have it")
    assert found["mounts"][0] == "ok" and f"{root}/input/competitions/Kannada-MNIST" in found["mounts"][1]
    assert found["backend"][0] == "ok" and found["data"][0] == "note"
    assert f"fix: kit download --from {root}" in "\n".join(lines)
    assert not [line for line in lines if "cannot be examined" in line]
