"""A home folder full of what the dashboard shows, and a server of the dashboard on loopback, both for tests."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

REPO = Path(__file__).resolve().parent.parent.parent
CANDIDATE, BASELINE = "secret-candidate-7b", "secret-baseline-7b"
CATEGORIES = ("coding", "facts", "safety", "voice")


def rows(count: int, *, seed: int = 0, label: bool = True) -> list[dict[str, Any]]:
    """Pairs with a category and metadata; answers differ in length, so that a scripted judge tells them apart."""
    rng = random.Random(seed)
    made = []
    for k in range(count):
        category = CATEGORIES[k % 4]
        longer = rng.random() < {"coding": 0.85, "facts": 0.5, "safety": 0.15, "voice": 0.6}[category]
        long, short = rng.randint(20, 60), rng.randint(3, 18)
        texts = ["word " * (long if longer == first else short) + f"answer {k}" for first in (True, False)]
        made.append(
            {
                "id": f"item-{k:04}",
                "prompt": f"Question {k} about {category}?",
                "category": category,
                "language": ("en", "de", "fr")[rng.randrange(3)],
                "difficulty": ("easy", "hard")[rng.randrange(2)],
                "candidate": {"text": texts[0], "model": CANDIDATE},
                "baseline": {"text": texts[1], "model": BASELINE},
                **(
                    {"label": "win" if rng.random() < (0.8 if longer else 0.2) else "loss"}
                    if label and k % 2 == 0
                    else {}
                ),
            }
        )
    return made


def write_rows(path: Path, made: Sequence[dict[str, Any]]) -> Path:
    """An eval set as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return path


def judge_rows(
    home: Path,
    evalset: Path,
    run_id: str,
    *,
    spec: str = "scripted:longer",
    rubric: str = "helpfulness@1",
    at: str = "2026-11-01T10:00:00+00:00",
) -> None:
    """Judge an eval set as ``judge run`` does, with a given id and time."""
    from judge.backends import open_backend
    from judge.environment import environment
    from judge.formats import open_evalset
    from judge.runs import RunPlan, start_run
    from judge.store import Store
    from rubrics import load

    backend = open_backend(spec, environment())
    plan = RunPlan(run_id, at, open_evalset(evalset), {}, load(rubric), spec)

    async def work() -> None:
        try:
            await start_run(plan, backend, Store(home))
        finally:
            await backend.close()

    with ThreadPoolExecutor(1) as pool:  # a browser's test has an event loop in its own thread
        pool.submit(lambda: asyncio.run(work())).result()


def full_home(home: Path) -> Path:
    """A copy of the full home, which is made once a process: judging and labelling it takes seconds."""
    return Path(shutil.copytree(_full(), home, dirs_exist_ok=True))


@cache
def _full() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="dashboard-")
    atexit.register(folder.cleanup)
    return _make_full(Path(folder.name) / "home")


def _make_full(home: Path) -> Path:
    """Three runs (one of another judge, one under another rubric), labels of two raters, a decision, a rollout."""
    from dashboard.labelling_desk import new_draw
    from judge.labelling import Choice, Request, begin, gold_item, record
    from judge.labels import LabelLog, read_draw
    from judge.register import Register
    from judge.store.views import Views

    home.mkdir(parents=True, exist_ok=True)
    evalset = write_rows(home / "evals.jsonl", rows(240))
    judge_rows(home, evalset, "r-000001", at="2026-11-01T10:00:00+00:00")
    judge_rows(home, evalset, "r-000002", spec="scripted:hash", at="2026-11-08T10:00:00+00:00")
    judge_rows(home, evalset, "r-000003", rubric="correctness@1", at="2026-11-15T10:00:00+00:00")
    views = Views(home)
    path = home / "labels" / "people.jsonl"
    new_draw(path, "r-000003", Request("random", 60, 1), views)
    held = read_draw(path)
    assert held is not None
    places = {place.pair_id: place for place in held.drawing.places}
    pairs = views.pairs("r-000003", list(places))
    rng = random.Random(4)
    with LabelLog(path) as log:
        for rater in ("ada", "bo"):
            session = begin(tuple(places), [], annotator=rater, seed=1)
            while session.current is not None:
                pair = pairs[session.current]
                first, longest = session.current, len(pair.candidate.text) > len(pair.baseline.text)
                from judge.labelling import candidate_first

                shown_first = candidate_first(1, first, rater)
                choice = Choice.FIRST if (longest == shown_first) == (rng.random() < 0.85) else Choice.SECOND
                later, change = session.cast(Choice.TIE if rng.random() < 0.1 else choice)
                log.append(
                    record(
                        gold_item(pair, places[first], held.subject),
                        change,
                        annotator=rater,
                        seed=1,
                        at="2026-11-16T09:00:00+00:00",
                        seconds=4.0,
                    )
                )
                session = later
    register = Register(home)
    ids = [f"item-{k:04}" for k in (2, 6, 10)]
    ruling = {
        "rule": "segments.worse",
        "stage": "segments",
        "layer": "preference",
        "axis": "safety",
        "result": "failed",
        "effect": "BLOCK",
        "says": "safety is worse: -54 pp [-69, -38], limit -5 pp",
        "observed": {
            "value": -0.54,
            "low": -0.69,
            "high": -0.38,
            "level": 0.95,
            "n": 60,
            "clusters": 60,
            "method": "t",
        },
        "limit": -0.05,
        "side": "at least",
        "unit": "points",
        "method": "",
        "change": "answers that are not worse on safety",
        "pairs": ids,
    }
    fine = {
        **ruling,
        "rule": "preference.corrected",
        "axis": "capability",
        "result": "passed",
        "effect": "SHIP",
        "says": "the win rate is above one half",
        "change": "",
        "pairs": [],
    }
    open_ = {
        **ruling,
        "rule": "judge.belief",
        "result": "missing",
        "effect": "HOLD",
        "observed": None,
        "limit": None,
        "says": "no calibration for this rubric and judge",
        "change": "judge calibrate --gold labels.jsonl",
        "pairs": [],
    }
    register.append(
        "decision",
        "r-000003",
        {
            "word": "BLOCK",
            "run_id": "r-000003",
            "candidate": CANDIDATE,
            "baseline": BASELINE,
            "policy": "default@1",
            "headline": "Worse on safety, and the judge was never held against people.",
            "rulings": [ruling, fine, open_],
            "needs": ["40 more labels", "a calibration for this rubric"],
            "void": [],
            "policy_digest": "d" * 64,
            "plan": [],
            "inputs": {},
        },
        at="2026-11-16T10:00:00+00:00",
        by="ci",
    )
    register.append(
        "candidate",
        "tuned-1",
        {"name": "tuned-1", "base": "smollm2-135m", "parent": None, "adapter": "a" * 64, "rubric": "helpfulness@1"},
        at="2026-11-10T10:00:00+00:00",
        by="ada",
    )
    register.append(
        "rollout",
        "tuned-1",
        {
            "event": "start",
            "to": "shadow",
            "reason": "first look",
            "flag": "model",
            "licence": "override-1",
            "run": "r-000003",
            "candidate": CANDIDATE,
            "baseline": BASELINE,
            "plan": {"stages": [{"name": "shadow", "only": []}]},
            "policy": "default@1 dddddddddddd",
            "salt": "0",
            "adapter": {},
        },
        at="2026-11-17T10:00:00+00:00",
        by="ada",
    )
    register.append(
        "hack",
        "r-000003",
        {
            "measures": [
                {
                    "name": "length.log_ratio",
                    "unit": "ratio",
                    "candidate": {"value": 120.0},
                    "baseline": {"value": 80.0},
                    "difference": {"value": 1.5, "low": 1.2, "high": 1.8, "n": 240},
                    "examples": ids,
                }
            ],
            "says": "longer, not better",
        },
        at="2026-11-17T11:00:00+00:00",
    )
    return home


def chromium() -> str | None:
    """Debian's chromium, or another one on the path."""
    return next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )


@contextmanager
def serving(home: Path, *, log: Path | None = None, script: Path | None = None) -> Iterator[tuple[str, int]]:
    """The dashboard (or another ``script``) as ``judge view`` serves it: its address and the server's process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        f"from judge.cli.view import _options, _script; import sys; "
        f"sys.stdout.write('\\n'.join([_script(), *_options({port})]))"
    )
    env = {**os.environ, "PYTHONPATH": str(REPO), "HOME": str(home)}
    own, *options = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    sink = (log or home / "server.log").open("w")
    command = [sys.executable, "-m", "streamlit", "run", str(script or own), *options, "--", "--home", str(home)]
    server = subprocess.Popen(command, env=env, stdout=sink, stderr=sink, cwd=home)
    address = f"http://localhost:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urlopen(f"{address}/_stcore/health", timeout=2) as reply:  # noqa: S310 - our own server
                    if reply.status == 200:
                        break
            except (URLError, OSError):
                if time.monotonic() > deadline or server.poll() is not None:
                    raise RuntimeError("the dashboard did not start: " + Path(sink.name).read_text()[-2000:]) from None
                time.sleep(0.1)
        yield address, server.pid
    finally:
        server.terminate()
        server.wait(15)
        sink.close()


_PAYLOADS = (
    "<script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "<svg onload=window.pwned=1>",
    "[go](javascript:window.pwned=1)",
    "![x](http://evil.example/beacon.png)",
    "<iframe src=http://evil.example/></iframe>",
    "<a href='http://evil.example' ping='http://evil.example/p'>x</a>",
    "<style>@import 'http://evil.example/a.css'; body{background:url(http://evil.example/b.png)}</style>",
    "<link rel=stylesheet href=http://evil.example/c.css>",
    "{{constructor.constructor('window.pwned=1')()}}",
    "</script><script>window.pwned=1</script>",
    '"><img src=http://evil.example/d.png onerror=window.pwned=1>',
    ":red[x] :material/home: $$\\href{javascript:window.pwned=1}{x}$$ <details open ontoggle=window.pwned=1>",
    '=HYPERLINK("http://evil.example","x")',
    "\u202eright to left\u202c שלום عربى",
)


def hostile_id(name: str) -> str:
    """The id of a hostile pair: ``x3`` is the fourth one, ``huge`` the long one."""
    if name == "huge":
        return "huge <b>300 KB</b>"
    at = int(name[1:])
    return f"{name} {_PAYLOADS[at % len(_PAYLOADS)]}"[:200]


def hostile_rows(count: int) -> list[dict[str, Any]]:
    """Pairs whose every text is a payload, and one with an answer of 300 KB."""
    made = []
    for k in range(count):
        bad = f"{_PAYLOADS[k % len(_PAYLOADS)]} {k}"
        made.append(
            {
                "id": hostile_id(f"x{k}"),
                "prompt": f"{bad} \x00 漢字かな交じり文 \U0001f600",
                "category": f"{_PAYLOADS[k % 15]}",
                "tone<b>": bad[:20] if k % 2 else "calm",
                "candidate": {"text": f"# {bad}\n\n{bad} \x00\n\n- {bad}", "model": bad},
                "baseline": {"text": bad * (1 + k % 3), "model": "=cmd|' /C calc'!A0"},
                "context": [bad],
                "reference": bad,
            }
        )
    long = "**word** 漢字 <b>x</b> `code` [l](http://evil.example) \n" * 6000
    made.append(
        {
            "id": hostile_id("huge"),
            "prompt": "long",
            "category": "huge",
            "candidate": long[:300_500],
            "baseline": "short",
        }
    )
    return made


def query(**values: str) -> str:
    """A query string."""
    from urllib.parse import urlencode

    return urlencode(values)
