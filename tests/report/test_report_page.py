"""The page of the report in a real browser, from disk."""

import browser
import pytest
from report_runs import EVIL, make_report, make_runs

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(browser.PROGRAM is None, reason="there is no Chromium: apt-get install chromium"),
]
WIDTHS = [(1200, False), (390, True)]  # of a desktop and of a phone


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    root = tmp_path_factory.mktemp("a blank and ü")
    make_runs(root)
    return make_report(root)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    started = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.mark.parametrize("width, mobile", WIDTHS)
def test_opens_from_disk_without_a_complaint(chromium, out, width, mobile, tmp_path):
    """Nothing on the console, nothing from anywhere, all pictures there, and nothing wider than the screen."""
    chromium.open(out / "index.html", width, mobile)
    assert chromium.complaints() == []
    assert all(url.startswith(("data:image/svg+xml", (out / "index.html").as_uri())) for url in chromium.requested())
    images = chromium.run("[...document.images].map(i => [i.complete, i.naturalWidth, i.alt.length])")
    assert len(images) == len(list((out / "plots").glob("*.svg"))) == len(list((out / "plots").glob("*.png"))) >= 6
    assert all(complete and pixels > 300 and alt > 20 for complete, pixels, alt in images)
    assert chromium.run("document.documentElement.scrollWidth") <= width
    narrow = chromium.run("Math.min(...[...document.querySelectorAll('tbody th')].map(t => t.offsetWidth))")
    assert narrow > 60  # names are not broken letter by letter
    chromium.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 50_000


def test_a_click_sorts(chromium, out):
    """By numbers, not by text; again: the other way; what is missing always last; and by name."""
    chromium.open(out / "index.html", 1200)
    names = "[...document.querySelector('table').tBodies[0].rows].map(row => row.cells[0].textContent)"
    values = "[...document.querySelector('table').tBodies[0].rows].map(row => row.cells[1].dataset.value ?? null)"
    before = chromium.run(names)
    for direction, order in (("ascending", 1), ("descending", -1)):
        chromium.click("#results th:nth-child(2) button")
        found = [None if value is None else float(value) for value in chromium.run(values)]
        assert found[-1] is None and found[:-1] == sorted(found[:-1], key=lambda value: order * value)
        assert chromium.run("document.querySelector('#results th:nth-child(2)').ariaSort") == direction
    chromium.click("#results th:nth-child(1) button")
    assert chromium.run(names) == sorted(before) != before
    assert chromium.run("document.querySelectorAll('[aria-sort=ascending], [aria-sort=descending]').length") == 1
    assert chromium.complaints() == []


def test_text_from_runs_is_text(chromium, out):
    chromium.open(out / "index.html", 1200)
    assert chromium.run("document.scripts.length") == 1 and chromium.run("document.title") == EVIL
    shown = chromium.run("[...document.querySelectorAll('#samples dd')].map(dd => dd.textContent)")
    assert shown.count(EVIL) == 2  # a source and an output
    assert chromium.run("document.querySelectorAll('#samples article').length") == 20
    assert chromium.run("document.querySelectorAll('#samples dd mark').length") > 20
    # what slipped through would not run: the policy refuses other scripts, and says so
    chromium.run("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")
    assert chromium.run("window.ran === undefined")
    assert any("Content Security Policy" in str(event) for event in chromium.complaints())


def test_prints_with_everything_open(chromium, out, tmp_path):
    chromium.open(out / "index.html", 1200)
    chromium.run("dispatchEvent(new Event('beforeprint'))")
    assert chromium.run("[...document.querySelectorAll('details')].every(details => details.open)")
    chromium("Emulation.setEmulatedMedia", media="print")
    assert chromium.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert chromium.run("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    chromium("Emulation.setEmulatedMedia", media="")
    assert len(chromium("Page.printToPDF")["data"]) > 100_000
