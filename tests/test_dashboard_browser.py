"""The dashboard in a real browser: every page in both themes and two widths, labels by keyboard, hostile rows.

Screenshots go to ``test-output/dashboard`` (not tracked), to be looked at.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dashboard.labelling_desk import new_draw
from judge.labelling import Request
from judge.store.views import Views

REPO = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location("made", REPO / "tests" / "servers" / "dashboard.py")
assert _spec is not None and _spec.loader is not None
made = sys.modules.setdefault("servers_dashboard", importlib.util.module_from_spec(_spec))  # one home for all files
if not hasattr(made, "full_home"):
    _spec.loader.exec_module(made)

pytest.importorskip("streamlit", reason="streamlit is not installed: pip install 'touchstone-judge[dashboard]'")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(made.chromium() is None, reason="no chromium on the path; on Debian: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SHOTS = REPO / "test-output" / "dashboard"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PAGES = {
    "decision": "?run=r-000003",
    "segments": "segments?run=r-000003&corrected=true&gold=people.jsonl",
    "segments-two-way": "segments?run=r-000003&by=language&across=category",
    "pairs": "pairs?run=r-000003&field=category&value=safety&outcome=loss",
    "regressions": "regressions?run=r-000003",
    "hacking": "hacking?run=r-000003",
    "label": "label?labels=people&as=cy",
    "calibration": "calibration?run=r-000003&gold=people.jsonl",
    "drift": "drift?run=r-000003",
    "runs": "runs?run=r-000003",
    "candidates": "candidates",
    "loop": "loop",
}
IDLE = '[data-testid="stApp"][data-test-script-state="notRunning"]'
CONTRAST = """
() => {
  const rgb = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const over = (top, under) => { const a = top[3] ?? 1; return [0, 1, 2].map((k) => top[k] * a + under[k] * (1 - a)); };
  const line = (v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const light = (c) => { const l = c.map(line);
    return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2]; };
  const chain = (node) => {
    const found = [];
    for (let n = node; n; n = n.parentElement || n.getRootNode().host) found.push(n);
    return found;
  };
  const out = "[disabled],[aria-disabled=true],canvas,svg,[role=img],style,script";
  const drawn = "canvas,[data-testid=stSkeleton],[data-testid=stDataFrame],[data-testid=stSliderThumbValue]";
  const worst = [];
  const walk = (root) => {
    for (const node of root.querySelectorAll("*")) {
      if (node.shadowRoot) walk(node.shadowRoot);
      const text = [...node.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
      const box = node.getBoundingClientRect();
      if (!text || !box.width || !box.height || node.closest(out)) continue;
      const up = chain(node), style = getComputedStyle(node);
      if (style.visibility === "hidden") continue;
      if (up.some((n) => n.nodeType === 1 && getComputedStyle(n).opacity === "0")) continue;
      if (up.some((n) => n.matches && n.matches(drawn))) continue;
      let ground = [255, 255, 255];
      for (const n of [...up].reverse()) {
        const c = rgb(getComputedStyle(n).backgroundColor);
        if (c.length > 2) ground = over(c, ground);
      }
      const alpha = up.reduce((a, n) => a * Number(getComputedStyle(n).opacity || 1), 1);
      const ink = rgb(style.color); ink[3] = (ink[3] ?? 1) * alpha;
      const pair = [light(over(ink, ground)), light(ground)].sort((a, b) => b - a);
      const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
      const told = [Math.round(ratio * 100) / 100, text.slice(0, 60), style.color, ground.map(Math.round).join(",")];
      if (ratio < 4.5) worst.push(told);
    }
  };
  walk(document);
  return worst.sort((a, b) => a[0] - b[0]).slice(0, 8);
}
"""


@dataclass
class Seen:
    """What a page did that it should not have."""

    failed: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def watch(self, page: Any) -> None:
        """Record every request of a page that failed or left the machine, and every dialog."""
        page.on("request", self._request)
        page.on("requestfailed", lambda request: self.failed.append(f"{request.url} {request.failure}"))
        page.on("response", self._response)
        page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))

    def _request(self, request: Any) -> None:
        if not re.match(r"^(https?|wss?)://(localhost|127\.0\.0\.1)(:\d+)?/|^(data|blob):", request.url):
            self.outside.append(request.url)

    def _response(self, response: Any) -> None:
        # The client looks for the server below the page's own path first; that is no missing file.
        if response.status >= 400 and not re.search(r"/_stcore/(health|host-config)$", response.url):
            self.missing.append(f"{response.status} {response.url}")

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to complain about; aborted loads of a page that was left are none."""
        return not (self.outside or self.missing or self.dialogs or [f for f in self.failed if "ERR_ABORTED" not in f])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The full home, and a run of hostile rows beside it."""
    folder = made.full_home(tmp_path_factory.mktemp("full"))
    made.judge_rows(
        folder,
        made.write_rows(folder / "hostile.jsonl", made.hostile_rows(150)),
        "r-hostile",
        at="2026-10-01T00:00:00+00:00",
    )
    return folder


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    """The address of a server of that home."""
    with made.serving(home, log=home / "server.log") as (found, _pid):
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Debian's chromium, headless, with a profile of its own."""
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=made.chromium(), headless=True, args=FLAGS)
        yield started
        started.close()


def settle(page: Any, timeout: float = 45_000) -> None:
    """Wait until the script has ended and nothing moves any more."""
    page.wait_for_selector(IDLE, timeout=timeout)
    page.wait_for_timeout(150)
    page.wait_for_selector(IDLE, timeout=timeout)
    page.wait_for_function(
        "!document.querySelector('[data-testid=stSkeleton]') && !document.querySelector('[data-stale=true]')",
        timeout=timeout,
    )


def shoot(page: Any, name: str, width: int) -> None:
    """A screenshot of the whole page: the window grows to its height and back."""
    height = page.evaluate(
        "Math.max(900, ...[...document.querySelectorAll('[data-testid=stMain]')].map((n) => n.scrollHeight))"
    )
    page.set_viewport_size({"width": width, "height": min(int(height) + 20, 5000)})
    page.wait_for_timeout(180)
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(SHOTS / f"{name}.png"))


@pytest.mark.parametrize(
    "theme",
    ["alternating", pytest.param("light", marks=pytest.mark.slow), pytest.param("dark", marks=pytest.mark.slow)],
)
def test_every_page_in_both_widths(browser: Any, address: str, theme: str) -> None:
    """No exception, no failed or off-machine request, contrast 4.5, nothing wider than the window; by default every
    page in one theme and one width, in turn, and with `-m slow` in both.
    """
    short = theme == "alternating"
    turns = ("light", "dark") if short else (theme, theme)
    contexts = [browser.new_context(color_scheme=scheme, viewport={"width": 1440, "height": 900}) for scheme in turns]
    pages, seen, wrong = [context.new_page() for context in contexts], Seen(), []
    for page in pages:
        seen.watch(page)
    for at, (name, path) in enumerate(PAGES.items()):
        page, scheme = pages[at % 2], turns[at % 2]
        widths = ((1440, 420)[at // 2 % 2],) if short else (1440, 420)
        page.set_viewport_size({"width": widths[0], "height": 900})
        page.goto(f"{address}/{path}")
        settle(page)
        for width in widths:
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(120)
            if page.locator('[data-testid="stException"], [data-testid="stErrorElement"]').count():
                wrong.append((name, width, "exception"))
            wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            if wide > 1:
                wrong.append((name, width, f"{wide} px wider than the window"))
            if width == widths[0]:
                wrong += [(name, scheme, *entry) for entry in page.evaluate(CONTRAST)]
            shoot(page, f"{name}-{scheme}-{width}", width)
    for context in contexts:
        context.close()
    assert seen.nothing, seen
    assert not wrong, "\n".join(map(str, wrong))


def test_a_label_sitting_by_keyboard_alone_and_blind(browser: Any, home: Path, address: str) -> None:
    """Votes, skip, undo, a look ahead, a reason and a note with keys only; before a vote no byte says who is who."""
    path = home / "labels" / "people.jsonl"
    before = len(path.read_text().splitlines())
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    served: list[bytes] = []
    page.on(
        "websocket",
        lambda socket: socket.on(
            "framereceived", lambda data: served.append(data if isinstance(data, bytes) else data.encode())
        ),
    )
    page.on(
        "response",
        lambda response: (
            served.append(response.body())
            if re.search(r"/(label|_stcore/[^h])", response.url) and response.ok
            else None
        ),
    )
    page.goto(f"{address}/label?labels=people&as=kim")
    settle(page)
    page.locator("h1").click()  # the page has the keyboard, no field of it

    def press(key: str) -> None:
        page.keyboard.press(key)
        page.wait_for_timeout(120)
        settle(page)

    data = b"".join(served)
    assert len(data) > 2000 and b"answer " in data, "the texts were served, so the capture works"
    for word in (made.CANDIDATE, made.BASELINE, "scripted", "item-0", "r-000003", "consistent"):
        assert word.encode() not in data, word
    press("j")
    press("k")
    press("1")
    press("2")
    press("s")
    press("u")
    press("n")
    page.wait_for_function("document.activeElement.tagName === 'TEXTAREA'")  # the field takes the keyboard
    page.keyboard.type("because 1 of 2, j and k")
    press("Enter")
    press("3")
    press("4")
    rows = [json.loads(line) for line in path.read_text().splitlines()[before:]]
    context.close()
    assert [row["annotator"] for row in rows] == ["kim"] * 6, rows
    assert [row.get("skipped", False) for row in rows] == [False, False, True, False, False, False]
    assert rows[0]["outcome"] in ("win", "loss") and rows[1]["outcome"] in ("win", "loss")
    assert rows[3]["outcome"] is None and rows[3]["revises"], "the undo"
    assert rows[4]["outcome"] == "tie" and rows[4]["rationale"] == "because 1 of 2, j and k"
    assert rows[5]["tags"] == ["both_bad"]


@pytest.mark.parametrize("short", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_hostile_rows_run_nothing_fetch_nothing_and_do_not_hold_the_page(
    browser: Any, address: str, short: bool
) -> None:
    """150 payloads in every text, 300 KB, right-to-left, CJK, NUL: no script, no request, idle within 2 s; the pages
    with most texts by default, all with `-m slow`.
    """
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    seen = Seen()
    seen.watch(page)
    paths = [
        "?run=r-hostile",
        "segments?run=r-hostile",
        "runs?run=r-hostile",
        "drift?run=r-hostile",
        "pairs?run=r-hostile",
        "hacking?run=r-hostile",
        "regressions?run=r-hostile",
    ]
    for path in ("segments?run=r-hostile", "runs?run=r-hostile") if short else paths:
        page.goto(f"{address}/{path}")
        settle(page)
        assert page.evaluate("window.pwned") is None, path
        assert page.locator('[data-testid="stException"]').count() == 0, path
    took = {}
    views = (("x3", "rendered"), ("x40", "raw"), ("huge", "rendered"), ("huge", "raw"), ("huge", "whole"))
    for name, view in views[::2] if short else views:
        pair = made.hostile_id(name)
        more = {"whole": "true"} if view == "whole" else {"view": view}
        page.goto(f"{address}/pairs?{made.query(run='r-hostile', pair=pair, **more)}")
        page.wait_for_selector(IDLE, timeout=45_000)
        started = time.monotonic()
        page.wait_for_selector("text=Judge calls", timeout=45_000)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        took[f"{name} {view}"] = time.monotonic() - started
        assert page.evaluate("window.pwned") is None, name
    settle(page)
    shown = "[...document.querySelectorAll('*')].map((n) => n.shadowRoot?.textContent.length || 0)"
    assert max(page.evaluate(shown)) > 300_000, "all of the 300 KB are there"
    shoot(page, "hostile-light-1440", 1440)
    context.close()
    assert seen.nothing, seen
    assert max(took.values()) < 2.0, took


def test_a_click_on_a_segment_leads_to_its_pairs(browser: Any, address: str) -> None:
    """The forest plot's point offers the pairs of its segment, and the link shows them."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    page = context.new_page()
    page.goto(f"{address}/segments?run=r-000003")
    settle(page)
    chart = page.locator('[data-testid="stVegaLiteChart"]').first
    link = page.get_by_role("link", name=re.compile("^Pairs of "))
    chart.locator("g.mark-symbol.role-mark path").first.click()
    link.wait_for(timeout=20_000)
    settle(page)
    assert "field=category" in str(link.get_attribute("href"))
    chart.hover()
    assert page.get_by_role("button", name=re.compile("^Download as PNG")).count()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save the chart as SVG").first.click()
    picture = Path(saved.value.path()).read_text(encoding="utf-8")
    assert picture.startswith("<svg xmlns=") and "safety" in picture and "worse" in picture
    assert saved.value.suggested_filename == "forest-category.svg"
    page.goto(address + str(link.get_attribute("href")))
    settle(page)
    assert page.get_by_text("comparisons pass the filters").count() == 1
    context.close()


@pytest.mark.slow
def test_pictures_for_the_readme(browser: Any) -> None:
    """The README's pictures are made here, of the sample set; copy them to `docs/img` after a look."""
    with tempfile.TemporaryDirectory(prefix="acme-") as folder:  # the home folder is in the picture
        _take_pictures(browser, Path(folder) / ".judge")


def _take_pictures(browser: Any, home: Path) -> None:
    pytest.importorskip("ctranslate2", reason="the embedded judge is not installed")
    env = {**os.environ, "PYTHONPATH": str(REPO), "JUDGE_HOME": str(home)}
    for words in (["demo"], ["gate", "latest"]):
        code = f"import sys; sys.argv = ['judge', *{words!r}]; from judge.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code], env=env, check=False, capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stderr  # the gate blocks the sample set's candidate
    views = Views(home)
    new_draw(home / "labels" / "release.jsonl", views.runs()[0].run_id, Request("random", 60, 3), views)
    SHOTS.mkdir(parents=True, exist_ok=True)
    pictures = (
        ("decision", "", "light"),
        ("segments", "segments?corrected=true", "dark"),
        ("label", "label?labels=release&as=ada", "light"),
    )
    with made.serving(home) as (address, _pid):
        for name, path, scheme in pictures:
            context = browser.new_context(viewport={"width": 1200, "height": 900}, color_scheme=scheme)
            page = context.new_page()
            page.goto(f"{address}/{path}")
            settle(page)
            page.wait_for_timeout(600)
            page.screenshot(path=str(SHOTS / f"readme-{name}.png"))
            assert (SHOTS / f"readme-{name}.png").stat().st_size < 200_000
            context.close()
