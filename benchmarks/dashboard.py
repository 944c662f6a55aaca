"""The dashboard on a million comparisons: queries, reruns, votes in a browser, memory, the first render.

    python benchmarks/dashboard.py                      # 1M comparisons, about four minutes on 2 cores
    python benchmarks/dashboard.py --rows 10_000_000 --queries-only   # ten million: 3 GB of disk, about six minutes
    python benchmarks/dashboard.py --rows 100_000 --no-browser

Times of queries are the best of nine. "query" is inside an open burst, in wall time and in CPU time of all threads;
"opened" the same with opening and closing the file, "again" what a page pays while the database stays as it is. CPU
seconds are of the process itself. Below the line is what the kept rows and counts do not answer. The first render is
measured in a real server: what it takes to start, and from opening a page in a browser until it stands; Streamlit's
test harness takes other ways and is printed beside. Everything is made here, on loopback.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))
spec = importlib.util.spec_from_file_location("made", REPO / "tests" / "servers" / "dashboard.py")
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)

from judge.store import rollups  # noqa: E402
from judge.store.database import reading, writing  # noqa: E402
from judge.store.views import Filter, Views  # noqa: E402

RUN = "r-big001"
FILL = """
INSERT INTO comparison BY NAME
WITH r AS (SELECT range i, (hash(range) >> 2)::BIGINT h, (hash(range * 7 + 1) % 10000) / 10000.0 u,
        (hash(range * 13 + 5) % 10000) / 10000.0 v, (hash(range * 17 + 5) % 10000) / 10000.0 w FROM range({n})),
    s AS (SELECT *, 0.02 + 0.96 * u pref,
        ['coding', 'math', 'safety', 'facts', 'voice', 'json-tools', 'reasoning', 'writing'][1 + h % 8] category FROM r)
SELECT '{run}' run_id, 'p' || lpad(i::VARCHAR, 8, '0') pair_id, 0 repeat, category,
    '{{"language":"' || (['en', 'de', 'fr', 'ja'][1 + (h // 8) % 4]) || '","difficulty":"'
        || (['easy', 'medium', 'hard'][1 + (h // 64) % 3]) || '","turns":' || (1 + (h // 1024) % 5) || '}}' metadata,
    printf('%016x', CASE WHEN i % 10 = 9 THEN i - 1 ELSE i END) prompt_digest,
    CASE WHEN h % 10 < 3 THEN ['win', 'loss', 'tie'][1 + (h // 4096) % 3] END AS "label",
    CASE WHEN w < 0.01 THEN NULL WHEN pref > 0.55 THEN 'win' WHEN pref < 0.45 THEN 'loss' ELSE 'tie' END outcome,
    CASE WHEN w >= 0.01 THEN pref END preference, pref * 0.9 p_win, 0.1 p_tie, (1 - pref) * 0.9 p_loss,
    CASE WHEN w >= 0.01 THEN v > 0.15 END consistent, CASE WHEN w >= 0.01 THEN greatest(pref, 1 - pref) END confidence,
    CASE WHEN w < 0.01 THEN 'unparsed' END invalid,
    CASE WHEN pref > 0.55 THEN 'win' WHEN pref < 0.45 THEN 'loss' ELSE 'tie' END cf_outcome,
    pref * 0.9 cf_win, 0.1 cf_tie, (1 - pref) * 0.9 cf_loss,
    CASE WHEN v <= 0.15 THEN 'loss' WHEN pref > 0.55 THEN 'win' WHEN pref < 0.45 THEN 'loss' ELSE 'tie' END bf_outcome,
    pref * 0.9 bf_win, 0.1 bf_tie, (1 - pref) * 0.9 bf_loss, (200 + h % 2000)::INT candidate_chars,
    (200 + (h // 2000) % 2000)::INT baseline_chars, '' flags, 'because ' || i rationale, 0.0004 AS "cost", 900 tokens,
    0 cached FROM s
"""
PAIRS = """
INSERT INTO pair SELECT '{run}', 'p' || lpad(range::VARCHAR, 8, '0'), '{{"id":"p' || lpad(range::VARCHAR, 8, '0')
    || '","item":{{"prompt":"Question ' || range || '"}},"candidate":{{"text":"' || repeat('word ', 30) || range
    || '"}},"baseline":{{"text":"' || repeat('term ', 25) || range || '"}}}}' FROM range({n})
"""
REPLIES = """
INSERT INTO reply SELECT md5(range::VARCHAR || p), 'x', 'j', '{run}', 'p' || lpad(range::VARCHAR, 8, '0'), p, 0,
    '{{"text":"A is better","probs":[0.6,0.1,0.3],"latency_ms":200}}'
    FROM range({n}), (VALUES ('candidate_first'), ('baseline_first')) AS o(p)
"""


def fill(home: Path, n: int) -> None:
    path = home / "judge.duckdb"
    header = next(iter(made_header(home)))
    started = time.perf_counter()
    with writing(path) as con:
        con.execute("SET memory_limit = '4GB'")
        for text in (FILL, PAIRS, REPLIES):
            con.execute(text.format(n=n, run=RUN))
        values = [RUN, "2026-12-01T00:00:00+00:00", header["rubric"], header["rubric_digest"], "scripted/longer",
                  header["evalset"]["digest"], True, json.dumps({**header, "run_id": RUN})]  # fmt: skip
        con.execute(
            (
                "INSERT INTO run (run_id, created_at, rubric, rubric_digest, judge, evalset, sealed, "
                "header) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            ),
            values,
        )
    filled, cpu, wall = time.perf_counter() - started, time.process_time(), time.perf_counter()
    with tempfile.TemporaryDirectory(dir=home) as folder:
        with reading(path) as con:
            rollups.take_out(con, RUN, Path(folder))
        rollups.roll_up_files(Path(folder), RUN)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        with writing(path) as con:
            held = time.perf_counter()
            rollups.keep(con, RUN, Path(folder))
            cells = con.execute("SELECT count(*) FROM rollup WHERE run_id = ?", [RUN]).fetchone()[0]
            held = time.perf_counter() - held
    print(f"filled {n:,} comparisons in {filled:.0f} s, file {path.stat().st_size / 1e6:,.0f} MB", flush=True)
    print(
        f"adding up: {cpu:.1f} CPU-s, {wall:.1f} s, {cells:,} sums; the database is held for {1e3 * held:.0f} ms; "
        f"{1e6 * cpu / n:.1f} CPU-s a million"
    )


def made_header(home: Path):
    from judge import journal

    yield next(journal.records(home / "runs" / "r-000001.jsonl"))


def questions(views: Views, n: int):
    """What each page asks on its first look; the pairs page with a filter, a sort and one pair in full."""
    rare = Filter("category", "safety", outcomes=("loss",), flipped=True)
    ids = tuple(f"p{k:08}" for k in range(0, n, max(1, n // 50)))
    return {
        "decision": [lambda: views.cells(RUN), lambda: views.cells(RUN, "category")],
        "segments": [
            lambda: views.facets(RUN),
            lambda: views.crossings(RUN),
            lambda: views.cells(RUN),
            lambda: views.cells(RUN, "category"),
        ],
        "segments, two-way": [lambda: views.cells(RUN, "category", "language")],
        "pairs": [lambda: views.facets(RUN), lambda: views.count(RUN), lambda: views.rows(RUN)],
        "pairs, filtered": [lambda: views.count(RUN, rare), lambda: views.rows(RUN, rare)],
        "pairs, sorted": [lambda: views.rows(RUN, sort="least confident first")],
        "pairs, by id": [lambda: views.rows(RUN, Filter(pairs=ids))],
        "one pair": [lambda: views.detail(RUN, f"p{n // 2:08}")],
        "calibration": [lambda: views.cells(RUN, "label"), lambda: views.histogram(RUN, "confidence")],
        "drift": [views.overview, lambda: views.cells(RUN, "sequence")],
        "hacking": [lambda: views.cells(RUN, "length"), lambda: views.histogram(RUN, "length")],
        "regressions": [
            lambda: views.facets(RUN),
            lambda: views.cells(RUN, "language"),
            lambda: views.cells(RUN, "turns"),
        ],
        "runs": [views.runs, views.overview],
    }


def beyond(views: Views, n: int):
    """What the kept rows and counts do not answer: the plain query over every row of the run."""
    return {
        "deep page of a sort": [lambda: views.rows(RUN, sort="least confident first", offset=n // 2)],
        "last page, as judged": [lambda: views.rows(RUN, offset=n - 50)],
        "range of confidence": [
            lambda: views.count(RUN, Filter(confidence=(0.7, 0.8))),
            lambda: views.rows(RUN, Filter(confidence=(0.7, 0.8))),
        ],
        "part of an id": [lambda: views.count(RUN, Filter(search="777"))],
    }


def best(work, times: int = 9) -> tuple[float, float]:
    """Milliseconds of wall time and of CPU time, the least of several."""
    wall, cpu = [], []
    for _ in range(times):
        started, used = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    return 1e3 * min(wall), 1e3 * min(cpu)


def queries(home: Path, n: int) -> None:
    views = Views(home)
    print(f"\n{'page':20} {'query ms':>9} {'CPU-ms':>8} {'opened ms':>10} {'again ms':>9}")
    for asked, told in ((questions(views, n), "worst"), (beyond(views, n), "worst of every row")):
        worst = spent = 0.0
        for page, those in asked.items():
            inside, cpu = _timed(views, home, page, those)
            worst, spent = max(worst, inside), max(spent, cpu)
        print(f"{told:20} {worst:9.1f} {spent:8.1f}\n")


def _timed(views: Views, home: Path, page: str, questions) -> tuple[float, float]:
    """Prints the times of a page's questions; returns those of the queries alone, in wall and CPU time."""

    def ask(*, forget: bool = True) -> None:
        if forget:
            views._answers.clear()  # noqa: SLF001 - the cost of an answer that is not remembered
        for question in questions:
            question()

    opened, _ = best(ask)
    again, _ = best(lambda: ask(forget=False))
    burst = views._burst  # noqa: SLF001 - as above, without opening the file
    with reading(home / "judge.duckdb") as con:
        views._burst = lambda read: read(con)  # noqa: SLF001
        ask()
        inside, cpu = best(ask)
    views._burst = burst  # noqa: SLF001
    print(f"{page:20} {inside:9.1f} {cpu:8.1f} {opened:10.1f} {again:9.2f}", flush=True)
    return inside, cpu


BARE = """
import streamlit as st
from dashboard.views import charts
from dashboard.place import chart, downloads, table
import polars
st.set_page_config(page_title="x", layout="wide")
st.sidebar.selectbox("Run", ["a", "b"], key="run", bind="query-params")
st.sidebar.caption("x"); st.sidebar.caption("y"); st.sidebar.caption("z")
st.title("Segments")
with st.container(horizontal=True):
    st.selectbox("Cut by", ["a", "b", "c"], key="by", bind="query-params")
    st.selectbox("and by", ["a", "b", "c"], key="across", bind="query-params")
st.markdown("x"); st.toggle("x", key="corrected", bind="query-params")
st.subheader("x"); st.caption("x")
ink = charts.ink(dark=False)
rows = [dict(segment=str(k), kind="judge", value=0.1, low=0.0, high=0.2, verdict="unclear", n=3) for k in range(8)]
chart(charts.forest(rows, ink, pick=True), ink, key="f", alt="x", pick=True)
st.subheader("x")
chart(charts.bars([dict(segment=str(k), win=0.4, tie=0.2, loss=0.4) for k in range(8)], ink), ink, key="b", alt="x")
frame = polars.DataFrame([{name: 1.0 for name in "abcdefghijklmn"} for _ in range(8)])
config = {name: st.column_config.NumberColumn(format="%.1f") for name in "abcdefgh"}
table(frame, alt="x", config=config)
downloads(frame, "x")
"""
RERUN = """
import json, statistics, sys, time
sys.argv = ["app.py", "--home", sys.argv[1]]
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

def page(name):
    at = AppTest.from_file({app!r}, default_timeout=60)
    at.query_params["run"] = {run!r}
    at._page_hash = calc_hash(name)
    return at

took = {{}}
cpu = time.process_time()
full = page("segments").run()
assert not full.exception, full.exception
took["first"] = time.process_time() - cpu
bare = AppTest.from_string({bare!r}, default_timeout=60).run()
assert not bare.exception, bare.exception
for name in ("full", "bare") * 2:
    {{"full": full, "bare": bare}}[name].run()
for name in ("full", "bare"):
    took[name] = []
for _ in range(15):
    for name, at in (("full", full), ("bare", bare)):
        cpu = time.process_time()
        at.run()
        took[name].append(time.process_time() - cpu)
took["total"] = time.process_time()
print(json.dumps({{k: statistics.median(v) if isinstance(v, list) else v for k, v in took.items()}}))
"""
FIRST = """
import sys, time
sys.argv = ["app.py", "--home", sys.argv[1]]
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash
at = AppTest.from_file({app!r}, default_timeout=60)
at.query_params["run"] = {run!r}
at._page_hash = calc_hash("segments")
at.run()
assert not at.exception
print(time.process_time())
"""
EMPTY = """
import streamlit as st
st.set_page_config(page_title="x", page_icon="\u2696\ufe0f")
st.navigation([st.Page(lambda: st.title("x"), title="x", url_path="segments", default=True)]).run()
"""


def child(code: str, *words: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run([sys.executable, "-c", code, *words], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return done.stdout.strip().splitlines()[-1]


def reruns(home: Path) -> None:
    app = str(REPO / "dashboard" / "app.py")
    told = json.loads(child(RERUN.format(app=app, run=RUN, bare=BARE), str(home)))
    print(
        f"\nrerun, segments page: {1e3 * told['full']:.0f} CPU-ms; an empty page with the "
        f"same widgets: {1e3 * told['bare']:.0f} CPU-ms; ratio "
        f"{told['full'] / told['bare']:.2f}"
    )
    harness = [float(child(FIRST.format(app=app, run=RUN), str(home))) for _ in range(3)]
    print(f"first render in Streamlit's test harness, with imports: {statistics.median(harness):.2f} CPU-s")


def first_render(home: Path) -> None:
    """A server from its start until a page stands in a browser, against importing three libraries, in CPU time."""
    imports = [float(child("import streamlit, altair, pandas, time; print(time.process_time())")) for _ in range(3)]
    unit = statistics.median(imports)
    print(f"\nimporting streamlit, altair and pandas: {unit:.2f} CPU-s")
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.py"
        empty.write_text(EMPTY)
        for told, script in (("an empty page of Streamlit", empty), ("the segments page", None)):
            runs = [_served_once(home, script) for _ in range(3)]
            started, page = (statistics.median(run[k] for run in runs) for k in (0, 1))
            print(
                f"{told:27} server ready after {started:.2f} CPU-s, first page {page:.2f} more: ratio "
                f"{page / unit:.2f}, from the start of the process {(started + page) / unit:.2f}",
                flush=True,
            )


def _served_once(home: Path, script: Path | None) -> tuple[float, float]:
    """CPU seconds of a new server until it answers, and from then until the first page stands in a browser."""
    from playwright.sync_api import sync_playwright

    with made.serving(home, script=script) as (address, pid), sync_playwright() as driver:
        engine = driver.chromium.launch(executable_path=made.chromium(), args=FLAGS)
        ready = server_cpu(pid)
        page = engine.new_context().new_page()
        page.goto(f"{address}/segments?run={RUN}")
        page.wait_for_selector(IDLE, timeout=60_000)
        page.wait_for_timeout(500)
        taken = server_cpu(pid) - ready
        engine.close()
    return ready, taken


def server_cpu(pid: int) -> float:
    """Seconds of user and system time of a process so far (proc(5)), in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


IDLE = '[data-testid="stApp"][data-test-script-state="notRunning"]'
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def browser(home: Path) -> None:
    from playwright.sync_api import sync_playwright

    tour = (
        "",
        "segments",
        "segments?by=language&across=category",
        "pairs",
        "pairs?outcome=loss&field=category&value=safety",
        "drift",
        "hacking",
        "runs",
        "regressions",
    )
    with made.serving(home) as (address, pid), sync_playwright() as driver:
        engine = driver.chromium.launch(executable_path=made.chromium(), args=FLAGS)
        pages = []
        for number in range(8):
            page = engine.new_context().new_page()
            pages.append(page)
            for path in tour if number in (0, 7) else tour[:4]:
                page.goto(f"{address}/{path}{'&' if '?' in path else '?'}run={RUN}")
                page.wait_for_selector(IDLE, timeout=60_000)
            if number == 0:
                print(f"\nserver memory: {memory(pid):.0f} MB with one session that saw {len(tour)} views", end="")
        print(f", {memory(pid):.0f} MB with eight open sessions")
        page = pages[0]
        page.goto(f"{address}/label?labels=people&as=bench")
        page.wait_for_selector(IDLE)
        page.wait_for_timeout(1500)
        page.locator("h1").click()
        took = []
        done = "document.body.innerText.match(/(\\d+) of \\d+ done/)?.[1]"
        for _ in range(12):
            before = page.evaluate(done)
            started = time.perf_counter()
            page.keyboard.press("1")
            page.wait_for_function(f"{done} !== '{before}'", polling=20)
            page.wait_for_selector(IDLE)
            took.append(time.perf_counter() - started)
        print(
            f"a vote by key, to the next pair and idle: median {statistics.median(took):.2f} s, "
            f"slowest {max(took):.2f} s"
        )
        engine.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=lambda text: int(text.replace("_", "")), default=1_000_000)
    parser.add_argument("--queries-only", action="store_true")
    parser.add_argument("--no-browser", action="store_true")
    asked = parser.parse_args()
    n = asked.rows
    with tempfile.TemporaryDirectory() as folder:
        home = made.full_home(Path(folder) / "home")
        fill(home, n)
        queries(home, n)
        if asked.queries_only:
            return
        reruns(home)
        if asked.no_browser or made.chromium() is None:
            print("no browser: the first render, votes and memory are left out")
            return
        first_render(home)
        browser(home)


if __name__ == "__main__":
    main()
