"""The inputs that a kernel names (datasets, models, outputs, competitions), and their mount points.

Kaggle mounts them below `/kaggle/input`: today in a folder for each kind (layout `new`, for kernels
that are pushed now), before that side by side (layout `old`, which older kernels keep). In a
rehearsal, folders on this machine stand for them: `--mount FOLDER`.
"""

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.core.errors import KitError

LAYOUTS = ("new", "old")
PARENTS = {"competition": "competitions", "dataset": "datasets", "model": "models",
           "kernel": "notebooks"}  # folders below /kaggle/input in the new layout
DOWNLOADS = {"competition": "kaggle competitions download {ref} && unzip {ref}.zip -d {folder}",
             "dataset": "kaggle datasets download {ref} --unzip -p {folder}",
             "model": "kaggle models variations versions download {ref} --untar -p {folder}",
             "kernel": "kaggle kernels output {ref} -p {folder}"}  # of Kaggle's own client


@dataclass(frozen=True)
class Source:
    """One input, as `kernel-metadata.json` names it."""

    kind: str  # a key of `PARENTS`
    ref: str  # SLUG, OWNER/SLUG or OWNER/MODEL/FRAMEWORK/VARIATION/VERSION

    @property
    def slug(self) -> str:
        """Its name without its owner; a model's without its variation as well."""
        return self.ref.split("/")[0 if self.kind == "competition" else 1]

    def download_command(self, folder: str) -> str:
        return DOWNLOADS[self.kind].format(ref=self.ref, folder=folder)

    def __str__(self) -> str:
        return f"the {self.kind} {self.ref}"


def named_in(metadata: dict[str, Any]) -> list[Source]:
    """Every input that the metadata names, each once."""
    found = [Source(kind, ref) for kind in PARENTS for ref in metadata[f"{kind}_sources"]]
    return list(dict.fromkeys(found))


def mount_points(sources: Sequence[Source], layout: str) -> dict[Source, str]:
    """Where below `/kaggle/input` each is mounted. KitError for an unknown layout."""
    if layout not in LAYOUTS:
        raise KitError(f"--layout {layout!r} is unknown", f"choose one of: {', '.join(LAYOUTS)}")
    if layout == "new":
        return {source: f"{PARENTS[source.kind]}/{_path(source)}" for source in sources}
    short = {source: _path(source) if source.kind == "competition"
             else _path(source).partition("/")[2] for source in sources}  # without the owner
    tops = Counter(place.split("/")[0] for place in short.values())
    # Of two with one name, each gets its owner's folder
    return {source: _path(source) if tops[place.split("/")[0]] > 1
            and source.kind in ("dataset", "kernel") else place
            for source, place in short.items()}


def _path(source: Source) -> str:
    """Its reference as a path, with a model's framework (pyTorch) in lower case, as on Kaggle."""
    if source.kind != "model":
        return source.ref
    owner, model, framework, *rest = source.ref.split("/")
    return "/".join([owner, model, framework.lower(), *rest])


# -- the folders that stand for them -------------------------------------------------------------


def match_folders(mounts: Sequence[str], sources: Sequence[Source],
                  metadata_file: Path) -> dict[Source, Path]:
    """Which folder stands for which input; each of `mounts` is FOLDER or REF=FOLDER.

    A folder is recognized by the metadata file of Kaggle's client in it, by the end of its path
    (OWNER/SLUG) or by its name (SLUG). KitError where it is no folder, matches none or several of
    the inputs, or matches one that has a folder already.
    """
    found: dict[Source, Path] = {}
    for mount in mounts:
        ref, equals, rest = mount.partition("=")
        wanted = [source for source in sources
                  if equals and source.ref.lower() == ref.strip().lower()]
        folder = Path(rest if wanted else mount).expanduser()
        if not folder.is_dir():
            raise _no_folder(folder, mount)
        wanted = wanted or _recognized(folder, sources)
        if len(wanted) != 1:
            raise _ambiguous(mount, folder, wanted, sources, metadata_file)
        if wanted[0] in found:
            raise KitError(f"two folders stand for {wanted[0]}: {found[wanted[0]]} and {folder}",
                           "leave one of the two out, or say what it is: --mount REF=FOLDER")
        found[wanted[0]] = folder
    return found


def _recognized(folder: Path, sources: Sequence[Source]) -> list[Source]:
    """The inputs that this folder may be."""
    for name in ("dataset-metadata.json", "kernel-metadata.json"):
        ref = read_metadata_id(folder / name)
        if ref:
            exact = [source for source in sources if source.ref.lower() == ref.lower()]
            if exact:
                return exact
    parts = [part.lower() for part in folder.resolve().parts]
    for length in (5, 2):  # the longer match is the safer one
        exact = [source for source in sources if source.ref.lower().split("/") == parts[-length:]]
        if exact:
            return exact
    return [source for source in sources if source.slug.lower() == parts[-1]]


def read_metadata_id(path: Path) -> str:
    """The `id` in a metadata file of Kaggle's client; empty where there is none."""
    try:
        said = json.loads(path.read_text("utf-8-sig"))["id"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""  # any folder may have a file of that name
    return said if isinstance(said, str) else ""


def _no_folder(folder: Path, mount: str) -> KitError:
    if not folder.exists():
        return KitError(f"--mount {mount}: {folder} is not there", "name a folder that is there")
    if folder.suffix.lower() == ".zip":
        unpacked = folder.with_suffix("")
        return KitError(f"--mount {mount}: {folder.name} is a zip, which Kaggle would have "
                        "unpacked", f"unzip {folder} -d {unpacked}, then --mount {unpacked}")
    return KitError(f"--mount {mount}: {folder} is a file", "name the folder that it is in")


def _ambiguous(mount: str, folder: Path, wanted: list[Source], sources: Sequence[Source],
               file: Path) -> KitError:
    """The error for a folder that may be none, or several, of the inputs."""
    if wanted:
        return KitError(f"--mount {mount} may be {' or '.join(map(str, wanted))}",
                        f"say which: --mount {wanted[0].ref}={folder}")
    competitions = [source for source in sources if source.kind == "competition"]
    sources = [source for source in sources
               if source.kind != "competition" or len(competitions) > 1]
    if not sources:
        return KitError(f"--mount {mount}: {file} names no other input than the competition",
                        'name it there as Kaggle must, such as "dataset_sources": ["OWNER/SLUG"]')
    return KitError(f"--mount {mount} is none of the inputs that {file} names: "
                    f"{', '.join(source.ref for source in sources)}",
                    f"say which it is: --mount {sources[0].ref}={folder}; or name it there as a "
                    "source")


def missing_error(sources: Sequence[Source], folder: Path) -> KitError:
    """The error for inputs of the kernel `folder` that no folder here stands for."""
    same_name = Counter(source.slug.lower() for source in sources)
    commands, mounts = [], []
    for source in sources:
        its_own = same_name[source.slug.lower()] == 1
        place = source.slug if its_own else source.ref.replace("/", "-")
        commands.append(source.download_command(place))
        mounts.append(f"--mount {place if its_own else f'{source.ref}={place}'}")
    commands.append(shlex.join(["kit", "kernel", "rehearse", str(folder)]) + f" {' '.join(mounts)}")
    return KitError(f"{folder} also reads {', '.join(map(str, sources))}, which this rehearsal "
                    "does not have", f"get it and lay it in: {'; '.join(commands)}")
