"""The pages in Debian's Chromium, driven over the DevTools protocol's pipe: no package is needed for that."""

import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from kit.reporting.compare import render_compare
from kit.reporting.report import render_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync --remote-debugging-pipe")
CONTRAST = (Path(__file__).parent / "contrast.js").read_text("utf-8")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no chromium here: apt-get install chromium")]


class Browser:
    """One page of a headless Chromium. Commands go into its descriptor 3 and come out of 4, each ended by a NUL."""

    def __init__(self, profile):
        to_read, self.write = os.pipe()
        self.read, to_write = os.pipe()
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}', CHROMIUM, *FLAGS.split(),
             f"--user-data-dir={profile}", "about:blank"], pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.rest, self.number, self.session, self.events = b"", 0, None, []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while (answer := self.receive()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def receive(self):
        until = time.monotonic() + 60
        while b"\0" not in self.rest:
            assert select.select([self.read], [], [], max(0, until - time.monotonic()))[0], "chromium says nothing"
            more = os.read(self.read, 1 << 20)
            assert more, "chromium has gone"
            self.rest += more
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def open(self, path, width=1280, scheme="light"):
        self.events.clear()
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
                  mobile=width < 600)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.send("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.receive())

    def js(self, expression):
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key, code):
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                      text="\r" if key == "Enter" else "")

    def close(self):
        self.process.terminate()
        self.process.wait(timeout=30)
        os.close(self.read)
        os.close(self.write)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


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
def test_the_report_renders_in_silence(browser, report_file, width, scheme):
    browser.open(report_file, width, scheme)
    assert browser.js("document.querySelectorAll('svg.chart').length") >= 8
    assert browser.js("[...document.images].every(i => i.complete && i.naturalWidth === 28)")
    assert_silent(browser, report_file, width)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_comparison_renders_in_silence(browser, compare_file, width, scheme):
    browser.open(compare_file, width, scheme)
    assert browser.js("document.images.length") > 20
    assert_silent(browser, compare_file, width)


def assert_silent(browser, page, width):
    """Nothing sticks out, nothing is asked of anybody, nothing is complained of; also with all tables open."""
    assert browser.js("document.documentElement.scrollWidth") <= width
    browser.js("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert browser.js("document.documentElement.scrollWidth") <= width
    asked = [event["params"]["request"]["url"] for event in browser.events
             if event.get("method") == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    noise = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
    assert [event for event in browser.events if event.get("method") in noise] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["report_file", "compare_file"])
def test_texts_of_charts_stand_out(browser, request, page, scheme):
    browser.open(request.getfixturevalue(page), scheme=scheme)
    texts = browser.js(f"{CONTRAST}(4.5)")
    assert texts["seen"] > 10 and texts["faint"] == []
    browser.js("document.querySelector('svg text').style.fill = getComputedStyle(document.body).backgroundColor")
    assert len(browser.js(f"{CONTRAST}(4.5)")["faint"]) == 1


def test_dark_is_dark_and_light_is_light(browser, report_file):
    shade = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    browser.open(report_file, scheme="light")
    assert min(browser.js(shade)) > 230
    browser.open(report_file, scheme="dark")
    assert max(browser.js(shade)) < 40


def test_the_gallery_filters_by_true_and_read_digit(browser, report_file):
    browser.open(report_file)
    total = browser.js("document.querySelectorAll('#gallery > li').length")
    seen = "[...document.querySelectorAll('#gallery > li')].filter(li => li.offsetParent)"
    assert browser.js(f"{seen}.length") == 60 < total
    browser.js("document.getElementById('more').click()")
    assert browser.js(f"{seen}.length") == total
    browser.js("{ const f = document.getElementById('filters'); f.elements.true.value = '7'; "
               "f.elements.read.value = '6'; f.dispatchEvent(new Event('change')); }")
    matching = browser.js("document.querySelectorAll('#gallery > li[data-true=\"7\"][data-read=\"6\"]').length")
    assert 0 < matching < total
    assert browser.js(f"{seen}.map(li => li.dataset.true + li.dataset.read).join()") == ",".join(["76"] * matching)
    assert browser.js("document.getElementById('shown').value") == f"{matching} of {matching} shown"


def test_a_cell_of_the_confusion_matrix_opens_by_keyboard_and_closes(browser, report_file):
    browser.open(report_file)
    cell = "document.querySelector('.matrix a[data-true=\"7\"][data-read=\"6\"]')"
    browser.js(f"{cell}.focus()")
    browser.press("Enter", 13)
    assert browser.js("document.getElementById('cell').open")
    assert browser.js("document.getElementById('cell-title').textContent") == "7 read as 6"
    assert browser.js(f"document.querySelectorAll('#cell img').length == {cell}.dataset.count")
    browser.press("Escape", 27)
    assert not browser.js("document.getElementById('cell').open")
    assert browser.js(f"document.activeElement === {cell}")


def test_right_answers_show_those_that_were_least_sure(browser, report_file):
    browser.open(report_file)
    browser.js("document.querySelector('.matrix a[data-true=\"3\"][data-read=\"3\"]').click()")
    assert browser.js("document.querySelectorAll('#cell img').length") == 8
