"""Groups of like shape in the test file, and how surely each is one person's."""

import dataclasses
import re
from collections import Counter

import numpy as np
import pytest

from kit.data.competition import KANNADA
from kit.reporting import report as reporting
from kit.reporting.handwriting import handwriting
from kit.reporting.page import value_at

KNOWN, UNSEEN, ROWS, TEST_ROWS = 24, 8, 100, 800


def with_hands(results, own_style):
    """The results, of writers who have a way of their own to write each digit; or one for all, if not `own_style`."""
    rng = np.random.default_rng(3)
    styles = rng.integers(0, 200, (KNOWN + UNSEEN, 10, 7, 7)).repeat(4, 2).repeat(4, 3).reshape(KNOWN + UNSEEN, 10, 784)
    if not own_style:
        styles[:] = styles[0]

    def pictures(writers, labels):
        return (styles[writers, labels] + rng.integers(0, 50, (len(labels), 784))).astype(np.uint8)

    labels, writers = np.tile(np.arange(10), TEST_ROWS // 10), rng.permutation(np.arange(TEST_ROWS) % UNSEEN)
    train, test, folds = results.data.train(), results.data.test(), results.folds
    tables = results.data.tables | {
        "train": dataclasses.replace(train, pixels=pictures(folds.writers, folds.labels)),
        "test": dataclasses.replace(test, pixels=pictures(KNOWN + writers, labels), ids=100 + np.arange(TEST_ROWS))}
    probs = (.9 * np.eye(10)[labels] + .01).astype("float32")
    return dataclasses.replace(results, data=dataclasses.replace(results.data, tables=tables), test=probs,
                               members=[dataclasses.replace(member, test=[probs] * len(member.test))
                                        for member in results.members]), writers, labels


@pytest.fixture(scope="module")
def known(make_results):
    return make_results(n_writers=KNOWN, rows=ROWS, skill=30)


@pytest.fixture(scope="module")
def apart(known):
    """Each has a hand of his own: the results, and who wrote each test row."""
    return with_hands(known, own_style=True)


def test_groups_of_hands_that_differ_are_the_people(apart):
    results, writers, labels = apart
    found = handwriting(results)
    assert found["writers"] == 8 and found["held_out_share"] > 0.9 > 0.4 > found["share_by_chance"]
    assert [len(groups) for groups in found["groups"]] == [8] * 10
    for k, groups in enumerate(found["groups"]):
        assert sum(group["rows"] for group in groups) == np.sum(labels == k)
        shares = [group["one_writer"] for group in groups]
        assert shares == sorted(shares, reverse=True) and shares[0] > 0.9
        people = Counter(int(writers[group["examples"][0]["index"]]) for group in groups)
        assert len(people) >= 7  # k-means may split one person's rows
        for row in (row for group in groups for row in group["examples"]):
            assert labels[row["index"]] == k and row["id"] == 100 + row["index"]


def test_groups_of_people_who_write_alike_are_no_ones(known):
    found = handwriting(with_hands(known, own_style=False)[0])
    assert found["held_out_share"] == pytest.approx(found["share_by_chance"], abs=0.08)
    assert max(group["one_writer"] for groups in found["groups"] for group in groups) < 0.6


def test_the_same_results_give_the_same_groups(apart):
    assert handwriting(apart[0]) == handwriting(apart[0])


def test_a_class_that_was_hardly_read_has_no_groups(apart):
    results, _, labels = apart
    probs = results.test.copy()
    probs[labels == 3] = probs[labels == 4][0]
    found = handwriting(dataclasses.replace(results, test=probs))
    assert found["groups"][3] == []
    assert sum(group["rows"] for group in found["groups"][4]) == 2 * TEST_ROWS // 10


def test_it_steps_aside_where_it_cannot_see_writers(apart, known, make_results):
    results = apart[0]
    few = np.arange(len(results.folds.rows)) % 10 < 3  # as of a --limit: too few of each writer
    oof = np.where(few[:, None], results.oof, np.nan)
    for other in (
            known,  # a test file of 300 rows
            dataclasses.replace(results, test=None),
            dataclasses.replace(results, data=dataclasses.replace(results.data, is_sample=True)),
            dataclasses.replace(results, competition=dataclasses.replace(KANNADA, writers_by_difficulty=())),
            dataclasses.replace(results, folds=dataclasses.replace(results.folds, keeps_writers_apart=False)),
            dataclasses.replace(results, folds=dataclasses.replace(results.folds, writers=None)),
            dataclasses.replace(results, oof=oof),
            with_hands(make_results(n_writers=12, rows=ROWS), own_style=True)[0]):
        assert handwriting(other) is None


def test_the_page_shows_the_groups_with_their_numbers(apart, build):
    results = apart[0]
    report = build(results)
    page = reporting.render_report(report, results)
    shown = page[page.index("Whose hand is it?"):page.index("Where the models disagree")]
    assert shown.count("<img") == 10 * 8 * 3
    assert "8</data> people wrote the test file" in shown
    for value, key in re.findall(r'<data value="([^"]*)" data-key="([^"]*)">', shown):
        assert value == str(value_at(report, key)), key


def test_the_page_says_nothing_of_hands_where_none_are_seen(known, build):
    assert "Whose hand" not in reporting.render_report(build(known), known)
