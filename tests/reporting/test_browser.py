"""The report and the comparison in Debian's Chromium, driven by Playwright."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from kit.reporting.compare import render_compare
from kit.reporting.report import render_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CONTRAST = (Path(__file__).parent / "contrast.js").read_text("utf-8")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium here: apt-get install chromium")]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser):
    """Open a file; the page keeps what it asked for in `.asked` and what it complained of in `.noise`."""
    contexts = []

    def opened(path, width=1280, scheme="light"):
        contexts.append(browser.new_context(
            viewport={"width": width, "height": 900}, is_mobile=width < 600, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.asked, page.noise = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.noise.append(message.text))
        page.on("pageerror", lambda error: page.noise.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def report_file(tmp_path_factory, make_results, build):
    results = make_results(n_writers=20, rows=100, skill=5.0, models=("cnn_aug", "cnn"))
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_report(build(results), results), "utf-8")
    path.chmod(0o444)
    path.parent.chmod(0o555)  # a page must not need more than to be read
    yield path
    path.parent.chmod(0o755)


@pytest.fixture(scope="module")
def compare_file(tmp_path_factory, compared, pair):
    path = tmp_path_factory.mktemp("two") / "compare.html"
    path.write_text(render_compare(compared, pair[0].data.train()), "utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_renders_in_silence(open_page, report_file, width, scheme):
    page = open_page(report_file, width, scheme)
    assert page.locator("svg.chart").count() >= 8
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth === 28)")
    assert_silent(page, report_file, width)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_comparison_renders_in_silence(open_page, compare_file, width, scheme):
    page = open_page(compare_file, width, scheme)
    assert page.locator("img").count() > 20
    assert_silent(page, compare_file, width)


def assert_silent(page, path, width):
    """Nothing sticks out, also with all tables open; nothing is fetched; nothing is complained of."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert [url for url in page.asked if not url.startswith("data:")] == [path.as_uri()]
    assert page.noise == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("file", ["report_file", "compare_file"])
def test_texts_of_charts_stand_out(open_page, request, file, scheme):
    page = open_page(request.getfixturevalue(file), scheme=scheme)
    texts = page.evaluate(CONTRAST, 4.5)
    assert texts["seen"] > 10 and texts["faint"] == []
    page.evaluate("document.querySelector('svg text').style.fill ="
                  " getComputedStyle(document.body).backgroundColor")
    assert len(page.evaluate(CONTRAST, 4.5)["faint"]) == 1


def test_dark_is_dark_and_light_is_light(open_page, report_file):
    shade = ("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"
             ".slice(0, 3).map(Number)")
    assert min(open_page(report_file, scheme="light").evaluate(shade)) > 230
    assert max(open_page(report_file, scheme="dark").evaluate(shade)) < 40


def test_the_gallery_filters_by_true_and_read_digit(open_page, report_file):
    page = open_page(report_file)
    digits = page.locator("#gallery > li")
    shown = digits.filter(visible=True)
    assert shown.count() == 60 < digits.count()
    page.locator("#more").click()
    assert shown.count() == digits.count()
    page.locator("#filters [name=true]").select_option("7")
    page.locator("#filters [name=read]").select_option("6")
    matching = page.locator("#gallery > li[data-true='7'][data-read='6']").count()
    assert 0 < matching < digits.count()
    assert shown.evaluate_all("all => all.map(li => li.dataset.true + li.dataset.read)") == (
        ["76"] * matching)
    assert page.locator("#shown").evaluate("output => output.value") == (
        f"{matching} of {matching} shown")


def test_a_cell_of_the_confusion_matrix_opens_by_keyboard_and_closes(open_page, report_file):
    page = open_page(report_file)
    cell = page.locator(".matrix a[data-true='7'][data-read='6']")
    cell.focus()
    page.keyboard.press("Enter")
    assert page.locator("#cell").evaluate("dialog => dialog.open")
    assert page.locator("#cell-title").text_content() == "7 read as 6"
    assert str(page.locator("#cell img").count()) == cell.get_attribute("data-count")
    page.keyboard.press("Escape")
    assert not page.locator("#cell").evaluate("dialog => dialog.open")
    assert cell.evaluate("cell => document.activeElement === cell")


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("names", ["clothes", "letters"])
def test_long_names_and_many_classes_have_room(open_page, make_results, build, tmp_path, names, width):
    """Nothing of the confusion matrix is cut off or lies on its neighbour, nor do the names on the samples."""
    results = make_results(models=("cnn",), slug="digit-recognizer", with_writers=False, split="stratified",
                           extra=False)
    results = dataclasses.replace(results, competition=dataclasses.replace(results.competition, class_names={
        "clothes": ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot"),
        "letters": tuple("ABCDEFGHIK")}[names]))
    report = build(results)
    if names == "letters":  # 30 classes, and counts of four digits
        report["competition"]["class_names"] = [a + b for a in "ABC" for b in "ABCDEFGHIK"]
        report["competition"]["labels"] = list(range(30))
        report["confusion"] = [[1144 if i == j else 0 for i in range(30)] for j in range(30)]
    path = tmp_path / "report.html"
    path.write_text(render_report(report, results), "utf-8")
    page = open_page(path, width)
    outside = page.evaluate("""() => {
        const inside = (part, whole) => part.left >= whole.left - 1 && part.right <= whole.right + 1;
        const range = document.createRange();
        return [...document.querySelectorAll('.matrix th .class span, .matrix a data, .sample .which .class span')]
            .filter(each => {
                range.selectNodeContents(each);
                const cell = each.closest('th, td, .which');
                return !inside(range.getBoundingClientRect(), cell.getBoundingClientRect());
            }).map(each => each.textContent);
    }""")
    assert outside == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_right_answers_show_those_that_were_least_sure(open_page, report_file):
    page = open_page(report_file)
    page.locator(".matrix a[data-true='3'][data-read='3']").click()
    assert page.locator("#cell img").count() == 8
