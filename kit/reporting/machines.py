"""Group a run's folds by the precision, device, software and batch that they were trained with.

Folds that were not trained alike differ a little for that reason alone: a run resumed on another
machine, trained on a cluster of unlike nodes, or blended from several runs, or folds for whose
whole batch memory was short.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kit.training import memory

if TYPE_CHECKING:
    from kit.ensembling.blend import Member

FIELDS = ("precision", "device", "software", "batch_size")
AS_ASKED = "batch size as asked for"


def trained_with(members: Iterable["Member"]) -> list[dict[str, Any]]:
    """The groups, each a dict of FIELDS and of `folds`, the keys model/seed_s/fold_k of its folds.

    device and software are "" for folds of a kit that did not record them (before 2026-11-29).
    batch_size says in words where it is smaller than what was asked for.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for member in members:
        for done in member.done:
            job, about = done["job"], done.get("trained_with") or {}
            software = ", ".join(f"{name} {version}" for name, version
                                 in sorted(about.get("versions", {}).items()))
            key = f"{member.model}/seed_{member.seed}/fold_{job['fold']}"
            asked = job.get("asked_batch_size")  # 0, or not there: as asked for
            batch = memory.batch_note(job["batch_size"], asked) if asked else AS_ASKED
            group = (job.get("precision", ""), about.get("device", ""), software, batch)
            groups.setdefault(group, []).append(key)
    return [{**dict(zip(FIELDS, group, strict=True)), "folds": folds}
            for group, folds in groups.items()]


def notes(groups: list[dict[str, Any]]) -> list[str]:
    """A sentence that names the folds that were not trained like the others.

    None if all were, with the batch that was asked for.
    """
    differs = [field for field in FIELDS if len({group[field] for group in groups}) > 1]
    if not differs:
        return [f"All folds: {group['batch_size']}." for group in groups
                if group["batch_size"] != AS_ASKED]
    parts = [f"{', '.join(group['folds'])}: "
             + "; ".join(group[field] or f"{field} not recorded" for field in differs)
             for group in groups]
    return ["Not all folds were trained alike, which by itself makes their scores differ a little "
            f"({' and '.join(differs).replace('_', ' ')}). {'. '.join(parts)}"]
