"""The competition's data and the sandboxes that a kernel is rehearsed in."""

import pytest

from kit.rehearsal import sandbox
from tests.rehearsal.kernels import write_data

# Not every machine permits namespaces.
SANDBOXES = ["namespaces", "python"] if sandbox.unshare_command() else ["python"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(params=SANDBOXES)
def sandbox_kind(request, monkeypatch):
    if request.param == "python":
        monkeypatch.setattr(sandbox, "unshare_command", tuple)
    return request.param
