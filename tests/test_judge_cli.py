"""The command line as a user meets it: real processes, exit codes, stdout for data and stderr for people."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from judge.register import Register
from judge.store import Store
from judge.store.database import writing

REPO = Path(__file__).parent.parent
VERBS = (
    "demo", "compare", "run", "resume", "recover", "calibrate", "label", "report", "hack", "probe", "rank", "rubric",
    "doctor",
)  # fmt: skip


def judge(
    *args: str, home: Path | None = None, stdin: bytes | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line in its own process; stderr must never show a traceback or a native library's complaints."""
    environment = {**os.environ, "PYTHONPATH": str(REPO), **({"JUDGE_HOME": str(home)} if home else {}), **env}
    code = "from judge.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        input=stdin,
        env=environment,
        check=False,
        cwd=home.parent if home else None,
    )
    out = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in out.stderr, out.stderr
    assert "nanobind" not in out.stderr, out.stderr
    return out


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def evalset(path: Path, rows: int = 12) -> Path:
    lines = [
        {
            "id": f"p{n}",
            "prompt": f"Q{n}?",
            "category": "ab"[n % 2],
            "candidate": "c" * (n + 1),
            "baseline": "bbbb",
            "label": "win" if n > 3 else "loss",
            "metadata": {"risk": "high" if n % 3 else "low"},
        }
        for n in range(rows)
    ]
    path.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    return path


def test_help_lists_every_verb_with_one_line() -> None:
    """--help and -h say what there is and where to begin."""
    shown = judge("--help").stdout
    assert shown == judge("-h").stdout
    for verb in VERBS:
        assert re.search(rf"^  {verb} +\S", shown, re.MULTILINE)
    assert "judge demo" in shown


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_option_is_explained(verb: str) -> None:
    """Each verb's help has a sentence, and each option a description."""
    shown = judge(verb, "--help").stdout
    options = shown.split("Options:")[1].split("Commands:")[0]
    for block in re.split(r"\n(?=  -)", options.strip("\n")):
        if block.strip().startswith("-"):
            assert len(block.split()) > 2, block


def test_a_misspelt_verb_is_helped() -> None:
    """An unknown verb exits 2 and names the nearest."""
    done = judge("repot")
    assert (done.returncode, "Did you mean 'report'" in done.stderr) == (2, True)


def test_run_reports_and_stores(home: Path, tmp_path: Path) -> None:
    """judge run prints the table on stdout, the way on on stderr, and the run can be shown again in every form."""
    done = judge("run", str(evalset(tmp_path / "e.jsonl")), "-j", "scripted:longer", home=home)
    assert done.returncode == 0
    assert re.search(r"^all +12 +58\.3% +16\.7% +25\.0% +\+33\.3 ", done.stdout, re.MULTILINE)
    assert max(map(len, done.stdout.splitlines())) <= 82
    run_id = re.search(r"r-[0-9a-f]{6}", done.stderr)
    assert run_id
    assert f"judge report {run_id[0]} --html report.html" in done.stderr
    again = judge("report", home=home)
    assert again.stdout == done.stdout
    page = tmp_path / "report.html"
    assert judge("report", run_id[0], "--html", str(page), home=home).returncode == 0
    assert "Net win rate" in page.read_text()
    assert "| all | 12 | 58.3% |" in judge("report", "--md", home=home).stdout
    value = json.loads(judge("report", "--json", home=home).stdout)
    assert (value["schema"], value["overall"]["n"], value["overall"]["win"]["n"]) == ("judge.report/1", 12, 12)
    listed = json.loads(judge("report", "--list", "--json", home=home).stdout)
    assert [row["run_id"] for row in listed] == [run_id[0]]


def test_json_of_a_run_is_the_report(home: Path, tmp_path: Path) -> None:
    """--json puts exactly one object on stdout."""
    done = judge("run", str(evalset(tmp_path / "e.jsonl")), "-j", "scripted:longer", "--json", home=home)
    assert json.loads(done.stdout)["overall"]["judged"] == 12


def test_slices_by_any_field_of_the_items(home: Path, tmp_path: Path) -> None:
    """report --by takes category or a metadata field, and names the fields when it knows none such."""
    judge("run", str(evalset(tmp_path / "e.jsonl")), "-j", "scripted:longer", home=home)
    assert re.search(r"^high +8 ", judge("report", "--by", "risk", home=home).stdout, re.MULTILINE)
    wrong = judge("report", "--by", "riks", home=home)
    assert (wrong.returncode, "there are category, risk" in wrong.stderr) == (2, True)


def test_compare_from_the_shell(home: Path, tmp_path: Path) -> None:
    """compare takes text, files and stdin, and prints the verdict or one JSON object."""
    (tmp_path / "answer.txt").write_text("a much longer answer")
    args = ["compare", "-p", "q", "-c", f"@{tmp_path / 'answer.txt'}", "-b", "-", "-j", "scripted:longer"]
    done = judge(*args, home=home, stdin=b"short")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "WIN for the candidate")
    value = json.loads(judge(*args, "--json", home=home, stdin=b"short").stdout)
    assert (value["outcome"], value["rubric"]["name"], len(value["verdicts"])) == ("win", "helpfulness", 2)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "none.jsonl", "-j", "scripted"], "none.jsonl: no such file"),
        (["run", "{e}", "-j", "nope"], "there is no judge 'nope'"),
        (["run", "{e}", "-r", "helpfulnes", "-j", "scripted"], "helpfulness"),
        (["run", "{e}", "-j", "scripted", "--map", "x"], "write FIELD=COLUMN"),
        (["run", "{e}", "-j", "scripted", "--map", "category=nope"], "no column 'nope'"),
        (["resume", "r-none"], "no such run"),
        (["resume", "../x"], "is no run id"),
        (["report", "r-none"], "no runs here yet"),
        (["--home", "x", "gate", "latest"], "the options of a command go after it: judge gate ... --home"),
        (["loop", "--home", "x", "status"], "the options of a command go after it: judge loop status ... --home"),
        (["foo"], "No such command 'foo'. See all of them with `judge --help`"),
        (["reprot"], "No such command 'reprot'. Did you mean 'report'?"),
        (["compare", "-p", "q", "-c", "-", "-b", "-"], "only one of"),
        (["compare", "-p", "q", "-c", "@none.txt", "-b", "b"], "none.txt: No such file"),
    ],
)
def test_bad_input_exits_2_with_one_message(home: Path, tmp_path: Path, args: list[str], message: str) -> None:
    """What is wrong, where, and nothing half-written."""
    path = evalset(tmp_path / "e.jsonl")
    done = judge(*(arg.replace("{e}", str(path)) for arg in args), home=home, stdin=b"")
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(home.glob("**/*.jsonl"))


def test_a_judge_that_cannot_answer_exits_3(home: Path, tmp_path: Path) -> None:
    """No server: exit 3 before a run begins; with a mode that needs no probe the run begins and can be resumed."""
    url = "openai:m?base_url=http://127.0.0.1:9/v1"
    done = judge("run", str(evalset(tmp_path / "e.jsonl")), "-j", url, home=home)
    assert done.returncode == 3 and "is the server running?" in done.stderr
    assert "judge resume" not in done.stderr and not list((home / "runs").glob("*"))
    begun = judge("run", str(tmp_path / "e.jsonl"), "-j", f"{url}&mode=text", home=home)
    assert begun.returncode == 3
    assert re.search(r"finish with: judge resume r-[0-9a-f]{6}", begun.stderr)


def test_a_run_without_one_verdict_exits_3(home: Path, tmp_path: Path) -> None:
    """All invalid is no result: the reasons are counted and the exit code says so."""
    rows = [{"id": "other", "judge": "j", "order": "ab", "verdict": "A"}]
    (tmp_path / "v.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    done = judge("run", str(evalset(tmp_path / "e.jsonl")), "-j", f"recorded:{tmp_path / 'v.jsonl'}", home=home)
    assert (done.returncode, "not one comparison could be judged (12 missing)" in done.stderr) == (3, True)
    assert "between -100.0 and +100.0 pp" in " ".join(done.stdout.split())


def test_ctrl_c_exits_130_and_resume_finishes(home: Path, tmp_path: Path) -> None:
    """An interrupt keeps what was judged and prints the command that finishes the run; that command does."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Slow(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            label = body["messages"][1]["content"].rsplit("exactly one of: ", 1)[1].split(",")[0]
            time.sleep(0.05)
            data = json.dumps({"choices": [{"message": {"content": label}, "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_args: object) -> None:
            """Stay quiet."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    path = evalset(tmp_path / "e.jsonl", 60)
    spec = f"openai:m?base_url=http://127.0.0.1:{httpd.server_port}/v1&concurrency=1"
    environment = {**os.environ, "PYTHONPATH": str(REPO), "JUDGE_HOME": str(home)}
    child = subprocess.Popen(
        [sys.executable, "-c", "from judge.cli import main; main()", "run", str(path), "-j", spec],
        env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(
        path.read_bytes().count(b'"t":"reply"') >= 8 for path in home.glob("runs/*.jsonl")
    ):
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, stderr = child.communicate(timeout=60)
    assert child.returncode == 130
    command = re.search(r"finish with: judge (resume r-[0-9a-f]{6})", stderr)
    assert command, stderr
    shown = judge("report", home=home)
    assert "UNFINISHED" in shown.stdout
    done = judge(*command[1].split(), home=home)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^all +60 ", done.stdout, re.MULTILINE)
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_doctor_finds_what_is_wrong_and_recover_mends_it(home: Path, tmp_path: Path) -> None:
    """A healthy home exits 0; a lost database is a note or an error with its fix; judge recover brings it back."""
    judge("run", str(evalset(tmp_path / "e.jsonl")), "-j", "scripted:longer", home=home)
    healthy = judge("doctor", home=home)
    assert (healthy.returncode, "journal and database agree" in healthy.stdout) == (0, True)
    (home / "judge.duckdb").write_bytes(b"garbage")
    broken = judge("doctor", home=home)
    assert (broken.returncode, "judge recover" in broken.stdout) == (1, True)
    assert judge("recover", home=home).returncode == 0
    journal = next((home / "runs").glob("*.jsonl"))
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + b"0" + lines[1][1:] + b"".join(lines[2:]))
    damaged = judge("doctor", home=home)
    assert (damaged.returncode, "line 2 is damaged" in " ".join(damaged.stdout.split())) == (1, True)


def test_doctor_notes_a_home_that_is_not_there(tmp_path: Path) -> None:
    """A mistyped home is no healthy one: the doctor says that no such folder is here."""
    missing = tmp_path / "typo"
    found = judge("doctor", home=missing)
    assert found.returncode == 0
    assert f"{missing} is no folder here" in "".join(found.stdout.split("\n")).replace("  ", "")
    assert not missing.exists()


def test_doctor_speaks_json(home: Path) -> None:
    """Every check has a state, a name and a detail."""
    checks = json.loads(judge("doctor", "--json", home=home).stdout)
    assert {"ok"} <= {check["state"] for check in checks} <= {"ok", "note", "bad"}


def test_nothing_colours_a_pipe(home: Path, tmp_path: Path) -> None:
    """Off a terminal there is not one escape byte, even where FORCE_COLOR asks."""
    done = judge(
        "run", str(evalset(tmp_path / "e.jsonl")), "-j", "scripted:longer", home=home, FORCE_COLOR="1", NO_COLOR="1"
    )
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr


def test_hostile_text_cannot_steer_the_terminal(home: Path, tmp_path: Path) -> None:
    """Control characters in categories and file names come out visible."""
    path = tmp_path / "e.jsonl"
    path.write_bytes(
        orjson.dumps({"prompt": "q", "candidate": "a", "baseline": "b", "category": "\x1b]0;owned\x07\u202e"})
    )
    done = judge("run", str(path), "-j", "scripted", home=home)
    assert "\x1b" not in done.stdout and "\x07" not in done.stdout and "\u202e" not in done.stdout
    assert "<U+001B>" in done.stdout


def test_a_database_of_an_older_version_is_no_fault(home: Path) -> None:
    """The doctor notes a run that an older version brought in; the next command brings it in anew and says so."""
    assert judge("demo", "-j", "scripted:longer", home=home).returncode == 0
    store, told = Store(home), []
    with writing(store.path) as con:
        con.execute("UPDATE reply SET reused = NULL")
        con.execute("UPDATE run SET screen = '2'")
    noted = judge("doctor", home=home)
    assert noted.returncode == 0, noted.stdout
    assert "brought in by an older version" in " ".join(noted.stdout.split())
    assert store.catch_up(lambda done, total: told.append((done, total))) == []
    assert told == [(1, 1)]
    assert "journal and database agree" in " ".join(judge("doctor", home=home).stdout.split())
    with writing(store.path) as con:
        con.execute("UPDATE reply SET reused = NULL")
    assert judge("doctor", home=home).returncode == 1, "of this version, the same is a fault"


def test_demo_runs_offline_with_a_scripted_judge(home: Path) -> None:
    """The demo ends with the result, what the judge is worth, where the report misleads, and what to type next."""
    done = judge("demo", "-j", "scripted:longer", home=home)
    assert done.returncode == 0
    for part in ("what the judge is worth on this set", "where this report can mislead", "95% interval"):
        assert part in done.stdout
    assert "judge run your.jsonl" in done.stderr
    assert len(Register(home).entries("decision")) == 1, "a first look has a decision to show"
    again = judge("demo", "-j", "scripted:longer", home=home)
    assert len(Register(home).entries("decision")) == 1, "where there are decisions, a sample makes no other"
    assert "cached 112" in again.stderr  # 106 pairs, and six of the seven canaries; the seventh needs no call


def test_help_loads_nothing_heavy() -> None:
    """judge --help imports click and little else."""
    heavy = [
        "pydantic",
        "duckdb",
        "polars",
        "numpy",
        "aiohttp",
        "torch",
        "transformers",
        "litellm",
        "openai",
        "scipy",
        "sklearn",
        "streamlit",
        "jinja2",
        "asyncio",
    ]
    code = (
        "import sys; from judge.cli import _run; _run(['--help']); "
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    assert done.stderr.strip() == "[]"


def test_nothing_is_said_at_the_end_of_what_a_run_kept() -> None:
    """DuckDB's binding complains on stderr of what is never freed; frozen cycles are freed before the command ends."""
    code = (
        "import gc, sys, duckdb\nfrom judge import cli\nclass Kept: pass\n"
        "kept = Kept(); kept.me = kept; kept.con = duckdb.connect(); del kept\n"
        "gc.freeze(); sys.argv = ['judge', '--version']; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
