"""A competition's file: what is refused and where, and the formats that it can describe."""

import dataclasses
import re
import tomllib

import numpy as np
import pytest

from kit.core.errors import KitError
from kit.data import competition as competitions
from kit.data.competition import KANNADA, Competition, from_text
from kit.data.competition_file import CHECKS, EXAMPLES
from kit.data.source import download, find_data
from kit.data.table import is_labelled, read_table, write_table
from tests import public_formats as public

GOOD = 'slug = "mine"\nclass_names = ["a", "b", "c"]\n'
RANKED = "writer_block = 10\nwriter_rows = 20\n"


def test_the_kit_s_own_are_such_files():
    assert (
        {path.stem for path in competitions.OWN.glob("*.toml")}
        == set(competitions.COMPETITIONS)
        == {"kannada-mnist", "digit-recognizer"}
    )
    assert KANNADA.layout(labelled=True).columns[:2] == ("label", "pixel0") and KANNADA.file is None
    assert competitions.DIGIT_RECOGNIZER.id_column is None


def test_each_setting_has_a_check_and_an_example_that_passes():
    assert (
        set(CHECKS)
        == set(EXAMPLES)
        == {field.name for field in dataclasses.fields(Competition)} - {"file"}
    )
    for name, example in EXAMPLES.items():
        if name != "official_rows":
            assert CHECKS[name](tomllib.loads(example)[name]) == ""


WRONG = {  # what is added to a good file, or stands in its place: what is said
    "is not TOML": ("slug = mine", r"mine.toml is not valid TOML: .*line 1"),
    "no slug": ('class_names = ["a", "b"]', "mine.toml has no slug"),
    "no classes": ('slug = "mine"', "neither class_names nor labels"),
    "unknown": (
        '+lables = [1, 2, 3]',
        "line 3: there is no setting 'lables'; did you mean labels?",
    ),
    "unknown table": (
        '+[files]\ntrain = "t.csv"',
        "line 3: there is no setting 'files'; choose from: slug",
    ),
    "number as text": ('+first_id = "1"', "line 3: first_id = '1' is not a whole number from 0"),
    "yes": (
        '+code_only = 1',
        "line 3: code_only = 1 is not true or false; write it like code_only = true",
    ),
    "one class": (
        'slug = "mine"\nclass_names = ["a"]',
        "line 2: .*is not a list of 2 to 256 different names",
    ),
    "a class twice": ('slug = "mine"\nclass_names = ["a", "a"]', "line 2: .*2 to 256 different"),
    "300 classes": (f'slug = "mine"\nlabels = {list(range(300))}', "line 2: labels = .*2 to 256"),
    "labels and names": ("+labels = [0, 2]", "line 3: 2 labels for 3 class_names"),
    "a label with a comma": ('+labels = ["a,b", "c", "d"]', "line 3: labels = .*without commas"),
    "a negative label": ("+labels = [-1, 0, 1]", "line 3: labels = .*whole numbers from 0"),
    "one label as number and text": (
        '+labels = [1, "1", 2]',
        "line 3: labels = .*different labels",
    ),
    "no area": ("+shape = [0, 28]", "line 3: shape = .*height and a width, each from 8 to 256"),
    "three sides": ("+shape = [28, 28, 3]", "line 3: shape = "),
    "a slug for a folder": (
        'slug = "../mine"\nclass_names = ["a", "b"]',
        "line 1: slug = .*single dashes",
    ),
    "the slug of a sample": (
        'slug = "mine-sample"\nclass_names = ["a", "b"]',
        "not ending in -sample",
    ),
    "a file elsewhere": ('+train = "../train.csv"', "line 3: train = .*without a folder"),
    "the kit's file": ('+extra = "test_labels.csv"', "line 3: extra = "),
    "one file for two": (
        '+train = "test.csv"',
        "line 3: train and test are the same file, test.csv",
    ),
    "no pixels": ('+train_columns = ["label"]', "line 3: train_columns has no 'pixels'"),
    "no label": ('+train_columns = ["kind", "pixels"]', "line 3: train_columns has no 'label'"),
    "no id": (
        '+id_column = "image"\ntest_columns = ["id", "pixels"]',
        "line 4: test_columns has no 'image'",
    ),
    "a column twice": ('+test_columns = ["id", "id", "pixels"]', "line 3: test_columns = "),
    "names without a header": (
        '+header = false\nfirst_pixel = "pixel1"',
        "line 4: .*no first_pixel",
    ),
    "a pixel without a number": ('+first_pixel = "pixel"', "line 3: first_pixel = "),
    "one hand-in column": ('+submission_columns = ["id", "id"]', "line 3: submission_columns = "),
    "block 0": ("+writer_block = 0", "line 3: writer_block = 0 is not a whole number from 1"),
    "a block without rows": (
        "+writer_block = 10",
        "line 3: .*no training file would show its writers",
    ),
    "a block of two rows": (
        "+writer_block = 2\nwriter_rows = 20",
        "line 3: writer_block = 2 is less than the 3",
    ),
    "rows without a block": ("+writer_rows = 20", "line 3: writer_rows needs writer_block"),
    "hardest of whom": ("+hardest_first = true", "line 3: hardest_first needs writer_block"),
    "a writer left out": (
        f"+{RANKED}writers_by_difficulty = [0, 2]",
        "line 5: .*each writer from 0 to 1 once",
    ),
    "an odd pool": ("+test_pool = 100", "line 3: test_pool = 100 rows .*3 classes"),
    "a module": ('+keras_dataset = "os.path"', "line 3: keras_dataset = "),
    "rows of no file": ('+[official_rows]\n"mine.csv" = 3', "line 4: official_rows names mine.csv"),
    "rows that are none": ('+[official_rows]\n"train.csv" = "3"', "line 3: official_rows = "),
    "another's page": (
        '+url = "https://www.kaggle.com/competitions/yours"',
        "line 3: .*not the address of mine",
    ),
    "no address": ('+url = "mine"', "line 3: url = 'mine' is not the address of a page"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_with_its_line(case):
    text, said = WRONG[case]
    text = GOOD + text[1:] if text.startswith("+") else text
    with pytest.raises(KitError) as caught:
        from_text(text, "mine.toml")
    assert re.search(said, f"{caught.value.message}; {caught.value.fix}"), caught.value
    assert "mine.toml" in caught.value.message and caught.value.fix


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KitError, match=r"there is no file mine\.toml") as caught:
        competitions.get("mine.toml")
    assert "--competition takes a slug, or the path of a TOML file" in caught.value.fix
    (tmp_path / "mine.toml").write_bytes(b'slug = "mine"\ntitle = "\xff"\n')
    with pytest.raises(KitError, match=r"mine\.toml, line 2: byte 24 of the file is not UTF-8"):
        competitions.get("mine.toml")
    with pytest.raises(KitError) as caught:
        competitions.get("mine")
    assert caught.value.fix == "did you mean the file mine.toml?"
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(KitError, match="is a folder, not a competition's TOML file"):
        competitions.get("folder.toml")


def test_a_record_gives_the_competition_back_and_shows_damage():
    own = from_text(GOOD, "mine.toml")
    stored = competitions.record(own)
    again = competitions.from_record(stored, "mine")
    assert (
        again == own and again.file == own.file and again.option == ("--competition", "mine.toml")
    )
    assert (
        competitions.record(KANNADA) == {}
        and competitions.from_record({}, "kannada-mnist") is KANNADA
    )
    for about in (
        {"text": GOOD},
        "mine.toml",
        {**stored["competition_file"], "text": GOOD + "first_id = 1\n"},
    ):
        with pytest.raises(KitError, match="not the file that was recorded"):
            competitions.from_record({"competition_file": about}, "mine")
    assert competitions.changed_settings(own, from_text(GOOD + "first_id = 1\n", "other.toml")) == [
        "first_id"
    ]
    assert competitions.changed_settings(own, from_text(f"# a remark\n{GOOD}", "mine.toml")) == []


# -- formats ---------------------------------------------------------------------------------------

SIZE = "shape = [8, 9]\n"
# settings, and the beginnings of the training file and of the test file
FORMATS = {
    "as Kannada-MNIST": ("", "label,pixel0,pixel1", "id,pixel0,pixel1"),
    "pixels from 1": ('first_pixel = "pixel1"\n', "label,pixel1,pixel2", "id,pixel1,pixel2"),
    "pixels by row and column": ('first_pixel = "1x1"\n', "label,1x1,1x2", "id,1x1,1x2"),
    "pixels with zeros": ('first_pixel = "p_0000"\n', "label,p_0000,p_0001", "id,p_0000,p_0001"),
    "a gap": ("labels = [0, 2, 24]\n", "label,pixel0,pixel1", "id,pixel0,pixel1"),
    "letters": ('labels = ["x", "ಅ", "z z"]\n', "label,pixel0,pixel1", "id,pixel0,pixel1"),
    "label last": (
        'label_column = "kind"\ntrain_columns = ["pixels", "kind"]\n',
        "pixel0,pixel1,pixel2",
        "id,pixel0,pixel1",
    ),
    "more columns": (
        'train_columns = ["id", "label", "who", "pixels", "when"]\n',
        "id,label,who",
        "id,pixel0,pixel1",
    ),
    "test with labels": (
        'test_columns = ["label", "pixels"]\n',
        "label,pixel0,pixel1",
        "pixel0,pixel1,pixel2",
    ),
    "no ids": ("id_column = false\nfirst_id = 5\n", "label,pixel0,pixel1", "pixel0,pixel1,pixel2"),
    "headerless": ("header = false\n", None, None),
    "headerless, a gap, label last": (
        'header = false\nlabels = [1, 2, 26]\ntrain_columns = ["pixels", "label"]\n',
        None,
        None,
    ),
}


@pytest.mark.parametrize("which", FORMATS)
def test_each_format_comes_back_as_it_was_written(which, tmp_path):
    settings, *heads = FORMATS[which]
    about = from_text(GOOD + SIZE + settings, "mine.toml")
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (30, 72), np.uint8), np.arange(30) % 3
    ids = np.arange(30) * 2 if about.id_column else np.arange(30) + about.first_id
    write_table(tmp_path / "train.csv", about, True, pixels, labels)
    write_table(tmp_path / "test.csv", about, False, pixels, ids=ids)
    for name, head in zip(("train.csv", "test.csv"), heads, strict=True):
        text = (tmp_path / name).read_text("utf-8")
        assert len(text.splitlines()) == 30 + about.header
        assert head is None or ",".join(text.split(",")[:3]) == head
    for _ in range(2):  # the second time from the cache
        train, test = (
            read_table(tmp_path / name, about, labelled)
            for name, labelled in (("train.csv", True), ("test.csv", False))
        )
        assert (train.pixels == pixels).all() and (test.pixels == pixels).all()
        assert (train.labels == labels).all() and train.labels.dtype == np.uint8
        assert (test.ids == ids).all() and test.labels is None
    if about.header:  # without, the number of columns is all there is to see
        assert is_labelled(tmp_path / "train.csv", about)
        assert not is_labelled(tmp_path / "test.csv", about)


def test_a_cache_of_other_labels_is_not_used(tmp_path):
    pixels = np.zeros((3, 72), np.uint8)
    one, other = (
        from_text(f"{GOOD}{SIZE}labels = {labels}\n", "mine.toml")
        for labels in ([1, 2, 3], [3, 2, 1])
    )
    write_table(tmp_path / "train.csv", one, True, pixels, np.arange(3))
    assert [
        read_table(tmp_path / "train.csv", about, True).labels.tolist()
        for about in (one, other, one)
    ] == [[0, 1, 2], [2, 1, 0], [0, 1, 2]]


@pytest.mark.parametrize(
    ("settings", "wrong", "said", "fix"),
    [
        (
            "labels = [0, 2, 24]",
            (b"\n24,", b"\n9,"),
            "line 4, column 'label': '9' is none of the labels",
            "the labels are '0', '2', '24': correct the cell; or write all that there are as labels "
            "in mine.toml",
        ),
        (
            "",
            (b"\n2,", b"\n3,"),
            "line 4, column 'label': '3' is not a whole number from 0 to 2",
            "in plain digits; or write the labels that the files have as labels in mine.toml; or",
        ),
        (
            "header = false",
            (b"", b""),
            "line 1: column names, and the file should have none",
            "delete the line; or write header = true in mine.toml",
        ),
        (
            "",
            (b"label,", b"kind,"),
            "line 1: column missing: 'label'; column unknown: 'kind'",
            "as they are in mine.toml",
        ),
        (
            "shape = [9, 9]",
            (b"", b""),
            "line 1: columns missing: 'pixel72'",
            "shape and the list of columns",
        ),
    ],
)
def test_data_that_is_not_as_described_is_named_with_both_ways_to_correct_it(
    settings, wrong, said, fix, tmp_path
):
    about = from_text(GOOD + SIZE * ("shape" not in settings) + settings, "mine.toml")
    written = from_text(GOOD + SIZE + settings * ("labels" in settings), "mine.toml")
    path = tmp_path / "train.csv"
    write_table(path, written, True, np.zeros((3, 72), np.uint8), np.arange(3))
    path.write_bytes(path.read_bytes().replace(*wrong) if wrong[0] else path.read_bytes())
    with pytest.raises(KitError) as caught:
        read_table(path, about, True)
    assert said in caught.value.message and fix in caught.value.fix


def test_names_where_there_should_be_none_and_none_where_there_should_be(tmp_path):
    about = from_text(GOOD + SIZE, "mine.toml")
    path = tmp_path / "train.csv"
    write_table(
        path,
        dataclasses.replace(about, header=False),
        True,
        np.zeros((3, 72), np.uint8),
        np.arange(3),
    )
    with pytest.raises(KitError, match="numbers where the column names should be") as caught:
        read_table(path, about, True)
    assert caught.value.fix.endswith("; or write header = false in mine.toml")


# -- public data sets ------------------------------------------------------------------------------


def test_sign_language_has_no_nine_and_its_zip_has_each_file_twice(tmp_path):
    public.draw_sign_language(tmp_path / "signs.zip")
    about = public.on_the_page("sign-language.toml")
    data = download(about, tmp_path / "signs.zip", tmp_path / "data")
    assert (
        about.label(9) == 10
        and about.class_names[9] == "K"
        and about.label(23) == 24
        and about.class_names[23] == "Y"
    )
    assert set(data.train().labels.tolist()) == set(range(24)) and data.test().labels is None
    assert (data.test_labels() == public.easy((28, 28), 24, 48, 48)[1]).all()
    assert find_data(about, tmp_path / "data").path.name == "sign-language-mnist"
    text = (data.path / "test_labels.csv").read_text()
    assert ",9\n" not in text and ",24\n" in text


@pytest.mark.parametrize("kind", ["csv", "idx", "idx.gz", "npz", "npz in Fortran's order"])
def test_fashion_is_the_same_in_each_of_its_formats(kind, tmp_path):
    about, source = public.on_the_page("fashion.toml"), tmp_path / "fashion"
    (x_train, y_train), (x_test, y_test) = (public.easy((28, 28), 10, n, n) for n in (100, 30))
    if kind == "csv":
        public.draw_fashion_csv(source)
    elif kind.startswith("idx"):
        public.draw_fashion_idx(source, packed=kind == "idx.gz")
    else:
        source, order = tmp_path / "fashion.npz", "F" if "Fortran" in kind else "C"
        np.savez(
            source,
            x_train=np.asarray(x_train, order=order),
            y_train=y_train,
            y_test=y_test,
            x_test=np.asarray(x_test, order=order),
        )
    data = download(about, source, tmp_path / "data")
    assert (data.train().pixels == x_train.reshape(100, -1)).all() and (
        data.train().labels == y_train
    ).all()
    assert (data.test().pixels == x_test.reshape(30, -1)).all() and (
        data.test_labels() == y_test
    ).all()
    assert data.train().path.name == "fashion-mnist_train.csv" and data.test().ids.tolist() == list(
        range(30)
    )


def test_devanagari_is_32_by_32_with_texts_for_labels_in_the_last_column(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    public.draw_devanagari()
    about = public.on_the_page("devanagari.toml")
    data = download(about, tmp_path / "devanagari", tmp_path / "data")
    train, test = data.train(), data.test()
    assert train.pixels.shape == (46 * 17, 1024) and test.pixels.shape == (46 * 3, 1024)
    assert (
        np.bincount(data.test_labels()).tolist() == [3] * 46 and len(np.unique(train.labels)) == 46
    )
    assert "33,character_" in (data.path / "test_labels.csv").read_text()


def test_a_file_that_is_called_otherwise_is_named_with_the_setting(tmp_path):
    public.draw_fashion_csv(tmp_path / "fashion")
    (tmp_path / "fashion" / "fashion-mnist_test.csv").rename(tmp_path / "fashion" / "test.csv")
    with pytest.raises(KitError, match=r"has no fashion-mnist_test\.csv; it holds") as caught:
        download(public.on_the_page("fashion.toml"), tmp_path / "fashion", tmp_path / "data")
    assert caught.value.fix.endswith(
        "or write train and test as the files are called in fashion.toml"
    )
