"""Many runs in one process, as a notebook has them, do not fill the memory."""

import json
import os
import subprocess
import sys

import pytest

from tests.test_docs import ROOT

SOAK = """
import json, sys
from pathlib import Path
from kit.commands import cli

def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) / 1024

sizes = []
for i in range(int(sys.argv[1])):
    model = sys.argv[2:] and ["--model", sys.argv[2]]
    words = ["cv", "--limit", "20", "--epochs", "1", "--folds", "2", "--tta", "1", "--executor", "local",
             "--run", f"run-{i}", "--quiet", *model]
    assert cli.run(words) == 0
    sizes.append(resident())
print(json.dumps(sizes), file=open("sizes.json", "w"))
"""


def soak(folder, n, *model):
    """Resident MiB after each of n runs in a process of its own."""
    subprocess.run([sys.executable, "-c", SOAK, str(n), *model], cwd=folder, check=True, stdout=subprocess.DEVNULL,
                   env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=1400)
    return json.loads((folder / "sizes.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", None])
def test_fifty_runs_in_one_process_grow_by_less_than_a_twentieth(workplace, model):
    """`None`: the model that the kit chooses, and with it the baseline."""
    sizes = soak(workplace, 50, *([model] if model else []))
    assert len(sizes) == 50
    assert sizes[-1] < 1.05 * sizes[9], [round(size) for size in sizes]
