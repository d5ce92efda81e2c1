"""The checks of `kit doctor` inside a kernel on Kaggle: what this session has got from Kaggle.

They are the machine's checks (`kit.commands.doctor`) with Kaggle's own before them, and with fixes
that can be carried out there. The sandbox of a rehearsal counts as Kaggle, too.
"""

import contextlib
import dataclasses
import os
import shutil
import socket
from pathlib import Path

from kit.commands import doctor
from kit.commands.doctor import BAD, NOTE, OK, Finding
from kit.core import provenance
from kit.core.errors import KitError
from kit.data import source as sources
from kit.data.competition import Competition
from kit.kaggle.credentials import find_credential
from kit.runtime import mounts

RUN_TYPES = {"Interactive": "an interactive session", "Batch": "the run of a saved version"}
# Written by the Dockerfile of Kaggle's image (github.com/Kaggle/docker-python)
BUILD_DATE, BUILD_COMMIT = Path("/etc/build_date"), Path("/etc/git_commit")
INTERNET = ("www.kaggle.com", 443)
TIMEOUT = 5.0  # seconds for a connection, where packets are dropped without an answer


def is_here() -> bool:
    """Whether this process runs in a kernel on Kaggle, or in a rehearsal of one."""
    return (mounts.kaggle_root() / "working").is_dir()


def examine(competition: Competition, data_dir: Path) -> list[Finding]:
    """The findings of all checks. Imports the training library, which takes seconds."""
    usual = doctor.checks(competition, data_dir)
    inputs = mounts.kaggle_root() / "input"

    def accelerator() -> Finding:
        found = usual["GPU"]()
        if found.state != NOTE:
            return found
        return dataclasses.replace(
            found, found="none: this session has no accelerator",
            fix="choose one in the notebook's session options; for a kernel that is pushed: "
                "kit kernel build --accelerator t4x2")

    def data() -> Finding:
        with contextlib.suppress(KitError):
            sources.find_data(competition, data_dir)
            return usual["data"]()
        mounted = str(mounts.find_data(inputs, competition))
        return Finding("data", NOTE, f"none in {data_dir} yet; kernels that the kit builds read "
                       "what is mounted",
                       sources.download_command(competition, data_dir, "--from", mounted))

    def credentials() -> Finding:
        # A token in a notebook is one that others may see
        return usual["credentials"]() if find_credential().present else Finding(
            "credentials", OK, "none, and none is needed: a kernel reads what is mounted")

    del usual["Kaggle image"]  # it compares another machine with Kaggle's
    return doctor.run({
        "Kaggle": _session, "image": _image, "versions": _versions,
        "internet": lambda: _internet(competition), "mounts": lambda: _mounts(inputs, competition),
        **usual, "GPU": accelerator, "credentials": credentials, "data": data})


def _session() -> Finding:
    working = mounts.kaggle_root() / "working"
    what = RUN_TYPES.get(os.environ.get("KAGGLE_KERNEL_RUN_TYPE", ""), "no session of Kaggle's")
    if "KIT_REHEARSAL" in os.environ:
        what += ", rehearsed on another machine"
    elif os.environ.get("KAGGLE_IS_COMPETITION_RERUN"):
        what += ", on the hidden test file"
    if not os.access(working, os.W_OK):
        return Finding("Kaggle", BAD, f"{what}; {working} cannot be written",
                       "restart the session: nothing that is written elsewhere is kept")
    found = f"{what}, {shutil.disk_usage(working).free / 1e9:.1f} GB free in {working}"
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        return Finding("Kaggle", OK, found)
    return Finding("Kaggle", NOTE, f"{found}: KAGGLE_KERNEL_RUN_TYPE is not set",
                   "none needed where you started Kaggle's image yourself")


def _image() -> Finding:
    """Which of Kaggle's images this is."""
    said = [f"{what} {path.read_text('utf-8', 'replace').strip()}"
            for what, path in (("built", BUILD_DATE), ("commit", BUILD_COMMIT)) if path.is_file()]
    if said:
        return Finding("image", OK, ", ".join(said))
    return Finding("image", NOTE, f"neither {BUILD_DATE} nor {BUILD_COMMIT} says which it is",
                   "none needed; Kaggle's own images have both files")


def _versions() -> Finding:
    others = provenance.other_versions()
    looked = f"Kaggle's image of {provenance.KAGGLE_IMAGE_DATE}, for which the kit is tested"
    if not others:
        return Finding("versions", OK, f"as in {looked}")
    return Finding("versions", NOTE, f"not as in {looked}: {', '.join(others)}",
                   "none needed where a kernel ends well: its report.json names its versions; to "
                   "keep them, kit kernel build --docker-image original")


def _internet(competition: Competition) -> Finding:
    """Kaggle takes no submission to a code competition from a kernel with internet."""
    try:
        socket.create_connection(INTERNET, TIMEOUT).close()
    except OSError:
        if competition.code_only:
            return Finding("internet", OK, "off, as a submission to this competition must have it")
        return Finding("internet", NOTE, "off", "turn it on in the notebook's session options, "
                       "if something is to be downloaded")
    if competition.code_only:
        return Finding("internet", NOTE, "on: this competition takes no submission from a kernel "
                       "that has it", "turn it off in the notebook's session options before you "
                       "save a version; kernels that the kit builds have it off")
    return Finding("internet", OK, "on")


def _mounts(inputs: Path, competition: Competition) -> Finding:
    folder = mounts.find_data(inputs, competition)
    others = [name for name in mounts.mounted_folders(inputs) if inputs / name != folder]
    also = f"; also mounted: {mounts.shortened(others)}" if others else ""
    return Finding("mounts", OK, f"the competition's files are in {folder}{also}")
