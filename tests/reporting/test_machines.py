"""A report names the folds of a run that were not trained alike, and by what they differ."""

import copy
import dataclasses

from kit.reporting import machines
from kit.reporting.report import render_report

EPYC = {"device": "AMD EPYC 9R14", "versions": {"tensorflow": "2.21.0", "keras": "3.15.1"}}
T4 = {**EPYC, "device": "Tesla T4"}


def trained(results, facts):
    """`results` whose folds record what `facts(model, fold)` says: (precision, trained_with)."""
    def changed(member):
        done = copy.deepcopy(member.done)
        for fold in done:
            precision, about = facts(member.model, fold["job"]["fold"])
            fold["job"]["precision"] = precision
            fold |= {"trained_with": about} if about else {}
        return dataclasses.replace(member, done=done)

    return dataclasses.replace(results, members=[changed(member) for member in results.members],
                               baseline=changed(results.baseline))


def test_folds_that_were_trained_alike_are_one_group_and_no_note(make_results, build):
    results = trained(make_results(), lambda model, fold: ("bfloat16", EPYC))
    report = build(results)
    (group,) = report["trained_with"]
    assert group["device"] == "AMD EPYC 9R14" and group["software"] == "keras 3.15.1, tensorflow 2.21.0"
    assert len(group["folds"]) == 10 and {"cnn_aug/seed_0/fold_4", "mlp/seed_0/fold_0"} <= set(group["folds"])
    assert not [note for note in report["notes"] if "trained alike" in note]


def test_folds_of_another_machine_and_precision_are_named_on_the_page(make_results, build):
    def facts(model, fold):
        return ("float16", T4) if model == "cnn_aug" and fold in (1, 3) else ("bfloat16", EPYC)

    results = trained(make_results(), facts)
    report = build(results)
    (note,) = [note for note in report["notes"] if "trained alike" in note]
    assert "(precision and device)" in note and "keras" not in note
    assert "cnn_aug/seed_0/fold_1, cnn_aug/seed_0/fold_3: float16; Tesla T4" in note
    assert "bfloat16; AMD EPYC 9R14" in note
    assert "cnn_aug/seed_0/fold_1, cnn_aug/seed_0/fold_3: float16; Tesla T4" in render_report(report, results)


def test_other_software_is_named_as_such():
    groups = [{"precision": "float32", "device": "a", "software": f"keras 3.{n}",
               "batch_size": machines.AS_ASKED, "folds": [f"cnn/seed_0/fold_{n}"]}
              for n in (12, 15)]
    (note,) = machines.notes(groups)
    assert "(software)" in note and "cnn/seed_0/fold_12: keras 3.12. cnn/seed_0/fold_15: keras 3.15" in note


def test_folds_of_an_older_kit_have_no_note_among_themselves_and_one_among_others(make_results, build):
    assert not [note for note in build(make_results())["notes"] if "trained alike" in note]
    mixed = trained(make_results(), lambda model, fold: ("float32", EPYC if fold else None))
    (note,) = [note for note in build(mixed)["notes"] if "trained alike" in note]
    assert "mlp/seed_0/fold_0: device not recorded; software not recorded" in note


def halved(results, folds):
    """`results` for whose `folds` memory was short, in every model."""
    def changed(member):
        done = copy.deepcopy(member.done)
        for fold in done:
            if fold["job"]["fold"] in folds:
                fold["job"] |= {"batch_size": 128, "asked_batch_size": 256}
        return dataclasses.replace(member, done=done)

    return dataclasses.replace(results, members=[changed(member) for member in results.members],
                               baseline=changed(results.baseline))


def test_folds_for_whose_batch_memory_was_short_are_named(make_results, build):
    results = halved(make_results(), {1, 3})
    report = build(results)
    (note,) = [note for note in report["notes"] if "trained alike" in note]
    assert "(batch size)" in note
    assert "cnn_aug/seed_0/fold_3, mlp/seed_0/fold_1" in note and "batch size as asked for" in note
    assert "batch size 128 instead of 256, as memory was short" in render_report(report, results)


def test_that_memory_was_short_for_all_is_said_as_well(make_results, build):
    report = build(halved(make_results(), set(range(5))))
    (group,) = report["trained_with"]
    assert group["batch_size"] == "batch size 128 instead of 256, as memory was short"
    assert "All folds: batch size 128 instead of 256, as memory was short." in report["notes"]
