"""The page on reliability says of bad files what the kit says."""

import itertools

import pytest

from scripts import bad_inputs


@pytest.mark.slow
def test_the_tables_of_bad_files_are_what_the_kit_says():
    """All but that of artifacts, whose every row has a test anyway, and takes a run to make."""
    page = bad_inputs.PAGE.read_text("utf-8")
    for family in itertools.islice(bad_inputs.families(), 4):
        assert bad_inputs.table(*family) in page
