"""The exported pages in a real browser: links, widths, print, light and dark.

Chromium is driven by its DevTools protocol, through a package that Jupyter brings.
"""

import itertools
import json
import re
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path
from urllib.request import urlopen

import nbformat
import pytest

from src.commands.html_export import notebook_to_html, page_to_html
from src.common.project import ANSWERS, ROOT
from src.common.project import NOTEBOOKS as NAMES

websocket = pytest.importorskip("websocket", reason="no websocket-client installed")
NOTEBOOKS = [ROOT / "notebooks" / name for name in NAMES.values()]
PAGES = [*NOTEBOOKS, *sorted(ANSWERS.glob("q[123]*.md"))]
#: What A4 leaves between margins of 20 mm, in CSS pixels: 170 mm of 25.4 mm / 96. Ours
#: are narrower; this allows for a browser's own, and for wider letters of other fonts.
A4 = 643

#: Each "#" link of the first section: what it says, the heading it leads to, and
#: whether that is in sight then.
ARRIVALS = """[...document.querySelectorAll("section:first-of-type a[href^='#']")].map(
  link => {
    scrollTo(0, 0);
    link.click();
    const end = scrollY + innerHeight + 2 >= document.documentElement.scrollHeight;
    const id = decodeURIComponent(location.hash.slice(1));
    const target = document.getElementById(id);
    const heads = [...document.querySelectorAll("h1, h2, h3")];
    const head = heads.find(h => h.contains(target) || target &&
      target.compareDocumentPosition(h) & Node.DOCUMENT_POSITION_FOLLOWING);
    const top = head ? head.getBoundingClientRect().top : NaN;
    return [link.textContent, head?.textContent, end ? top < innerHeight : top < 40];
  })"""

#: What stands out of the page to the right, though it can't be scrolled.
CUT_OFF = """[...document.querySelectorAll("main *")].filter(e => {
    const scrolls = e.closest("pre, table, .formula, .output");
    const right = e.getBoundingClientRect().right;
    return right > innerWidth + 1 && (PRINT || !scrolls);
  }).map(e => e.outerHTML.slice(0, 80))"""

#: Texts whose colour is too close to what is behind them (WCAG: 4.5), and the page's.
CONTRASTS = """(() => {
  const rgb = css => css.match(/[\\d.]+/g).map(Number);
  const light = css => rgb(css).slice(0, 3).map(v => v / 255).map(
    v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
  ).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const clear = css => rgb(css)[3] === 0;
  const behind = e => {
    while (e.parentElement && clear(getComputedStyle(e).backgroundColor))
      e = e.parentElement;
    return light(getComputedStyle(e).backgroundColor);
  };
  const dim = {};
  for (const e of document.querySelectorAll("main *")) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const both = [light(getComputedStyle(e).color), behind(e)].sort((a, b) => b - a);
    const contrast = (both[0] + 0.05) / (both[1] + 0.05);
    if (contrast < 4.5) dim[e.tagName + "." + e.className] = contrast;
  }
  return [behind(document.body), dim];
})()"""


class Browser:
    """One page of a headless Chromium."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, suppress_origin=True)
        self._numbers = itertools.count()

    def send(self, method: str, **parameters: object) -> dict:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message))
        while (answer := json.loads(self._socket.recv())).get("id") != number:
            pass  # events
        assert "error" not in answer, answer
        return answer["result"]

    def evaluate(self, script: str) -> object:
        done = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def open(self, page: Path, width: int, scheme="light", media="screen") -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=768,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", media=media, features=scheme)
        self.send("Page.navigate", url=page.as_uri())
        loaded = (
            f"document.readyState === 'complete' && location.href === '{page.as_uri()}'"
        )
        for _ in range(500):
            if self.evaluate(loaded):
                return
            time.sleep(0.02)
        raise TimeoutError(page.name)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium or Chrome is installed")
    profile = tmp_path_factory.mktemp("profile")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    options += ["--remote-debugging-port=0", f"--user-data-dir={profile}"]
    with open(profile / "log", "wb") as log:
        process = subprocess.Popen([program, *options], stdout=log, stderr=log)
    try:
        for _ in range(200):
            text = (profile / "log").read_text("utf-8", "replace")
            if found := re.search(r"DevTools listening on ws://([\d.:]+)/", text):
                break
            time.sleep(0.1)
        else:
            pytest.skip("Chromium does not start here")
        with urlopen(f"http://{found[1]}/json/list", timeout=20) as answer:
            pages = [one for one in json.load(answer) if one["type"] == "page"]
        yield Browser(pages[0]["webSocketDebuggerUrl"])
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function: the exported HTML file of a notebook or page; each is made once."""
    folder = tmp_path_factory.mktemp("pages")

    @cache
    def export(source: Path) -> Path:
        if source.suffix == ".ipynb":
            html = notebook_to_html(nbformat.read(source, 4))
        else:
            language = "he" if source.name.endswith(".he.md") else "en"
            html = page_to_html(source.read_text("utf-8"), language, source.parent)
        (folder / f"{source.name}.html").write_text(html, encoding="utf-8")
        return folder / f"{source.name}.html"

    return export


def names(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("source", NOTEBOOKS, ids=names)
def test_contents_lead_to_their_headings(browser, exported, source):
    browser.open(exported(source), 1366)
    arrivals = browser.evaluate(ARRIVALS)
    assert len(arrivals) >= 5
    for link, heading, in_sight in arrivals:
        assert heading and in_sight, (link, heading)
        assert link.split()[0].lower() in heading.lower()  # its number, or first word


@pytest.mark.parametrize("source", PAGES, ids=names)
@pytest.mark.parametrize("width", [400, 1366])
def test_nothing_is_wider_than_the_window(browser, exported, source, width):
    browser.open(exported(source), width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(CUT_OFF.replace("PRINT", "false")) == []


@pytest.mark.parametrize("source", PAGES, ids=names)
def test_nothing_is_cut_off_on_paper(browser, exported, source):
    browser.open(exported(source), A4, "dark", "print")
    assert browser.evaluate(CUT_OFF.replace("PRINT", "true")) == []
    paper, _ = browser.evaluate(CONTRASTS)
    assert paper == 1.0  # white, whatever the screen shows


@pytest.mark.parametrize("source", PAGES, ids=names)
def test_light_and_dark_can_be_read(browser, exported, source):
    backgrounds = []
    for scheme in ("light", "dark"):
        browser.open(exported(source), 1366, scheme)
        background, dim = browser.evaluate(CONTRASTS)
        assert dim == {}, scheme
        backgrounds.append(background)
    assert backgrounds[0] == 1.0 and backgrounds[1] < 0.02


def notebook(tmp_path: Path, output: nbformat.NotebookNode) -> Path:
    """The export of a notebook with a title and this one output."""
    title = nbformat.v4.new_markdown_cell("# T")
    cell = nbformat.v4.new_code_cell("x", outputs=[output])
    page = tmp_path / "page.html"
    html = notebook_to_html(nbformat.v4.new_notebook(cells=[title, cell]))
    page.write_text(html, encoding="utf-8")
    return page


def test_figures_keep_their_white_paper_in_the_dark(browser, tmp_path):
    """They are drawn in dark ink, some on nothing."""
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
    figure = nbformat.v4.new_output("display_data", data={"image/svg+xml": svg})
    browser.open(notebook(tmp_path, figure), 1366, "dark")
    style = "getComputedStyle(document.querySelector('.output img')).backgroundColor"
    assert browser.evaluate(style) == "rgb(255, 255, 255)"


def test_printed_tables_scroll_and_do_not_break(browser, tmp_path):
    """A row of printed numbers stays one line in a narrow window."""
    row = "0.123456 " * 20
    table = nbformat.v4.new_output("stream", text=f"{row}\n{row}\n")
    browser.open(notebook(tmp_path, table), 400)
    pre = "document.querySelector('.output pre')"
    assert browser.evaluate(f"{pre}.clientHeight") < 60  # two lines and padding
    assert browser.evaluate(f"{pre}.scrollWidth > {pre}.clientWidth + 500")
    assert browser.evaluate(f"getComputedStyle({pre}).overflowX") == "auto"
