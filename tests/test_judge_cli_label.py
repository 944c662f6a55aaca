"""``judge label`` as a person meets it: a real pseudo-terminal, piped keys, kill -9, blindness, the corrected rate."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any, Self

import orjson
import pytest

from calibration import Estimate, GoldSet, win_rate
from judge.cli import _run
from judge.evidence import run_evidence
from judge.labels import read_draw, read_rows
from judge.store import Store

REPO = Path(__file__).parent.parent
HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202eevil\x9b31m\x00 ── First ──\n1 first better"
# What nobody may see before the vote: names, ids, categories, verdicts, runs and files.
SECRETS = ("zeta", "omega", "row-", "segment", "r-", "evil.jsonl", "win", "loss", "confidence", "%")


def evalset(path: Path, rows: int = 60, model: str = "zeta-large") -> Path:
    lines = [
        {
            "id": f"row-{n}",
            "prompt": f"Question {n}?",
            "category": f"segment-{n % 2}",
            "candidate": {"text": f"left text {n} " + "c" * (n % 9), "model": model},
            "baseline": {"text": f"right text {n} bbbb", "model": "omega-mini"},
            "label": "win",
            "metadata": {"risk": "high" if n % 3 else "low"},
        }
        for n in range(rows)
    ]
    path.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    return path


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with one judged run of 60 pairs, made once."""
    folder = tmp_path_factory.mktemp("judged")
    home = folder / "home"
    path = evalset(folder / "zeta-vs-omega.jsonl")
    assert _run(["run", str(path), "-j", "scripted:longer", "--home", str(home)]) == 0
    return home


@pytest.fixture
def home(judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, with the tests' folder as the working directory."""
    shutil.copytree(judged, tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUDGE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


class Done:
    """What one call left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def label(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """`judge label` with keys piped in, in this process."""

    def call(*args: str, keys: str | None = "", to: str = "gold.jsonl", who: str = "ada") -> Done:
        source = tmp_path / "keys"
        source.write_text(keys or "", encoding="utf-8")
        named = ["--as", who] if who else []
        with Path(os.devnull if keys is None else source).open(encoding="utf-8") as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            capsys.readouterr()
            code = _run(["label", "--to", to, *named, *args])
        shown = capsys.readouterr()
        return Done(code, shown.out, shown.err)

    return call


def test_labels_are_kept_with_their_draw(label: Any, home: Path) -> None:
    """Votes, a note, closeness and both-bad become rows of a gold set; the draw and its chances stand beside them."""
    done = label("--n", "5", "--json", keys="1 2\nn the first cites nothing\nc c 3\n4 s\n")
    assert done.code == 0
    rows = read_rows(Path("gold.jsonl"))
    assert [row.get("outcome") for row in rows].count(None) == 1
    assert (rows[2]["outcome"], rows[2]["rationale"], rows[2]["closeness"]) == ("tie", "the first cites nothing", 0.5)
    assert (rows[3]["outcome"], rows[3]["tags"], rows[4]["skipped"]) == ("tie", ["both_bad"], True)
    for row, choice in zip(rows[:2], "12", strict=True):
        first_won = (row["outcome"] == "win") == (row["shown_first"] == "candidate")
        assert first_won == (choice == "1")
        assert (row["candidate"], row["baseline"], row["rubric"]) == ("zeta-large", "omega-mini", "helpfulness@1")
        assert (row["drawn"], row["probability"]) == ("random", 5 / 60)
    record = read_draw(Path("gold.jsonl"))
    assert record is not None and len(record.drawing.places) == 5
    value = json.loads(done.out)
    assert (value["labelled"], value["skipped"], value["to_go"]) == (4, 1, 0)
    assert value["choices"] == {"first": 1, "second": 1, "tie": 1, "both_bad": 1}
    assert value["next"].startswith("judge calibrate r-") and value["next"].endswith("--gold gold.jsonl")
    assert "4 labels, 1 skipped, 0 to go (random draw of 5 from 60 pairs)" in done.err


def test_the_cluster_is_the_stores(label: Any, home: Path) -> None:
    """A label names its prompt as the store does, so that labels and comparisons are clustered alike."""
    label("--n", "5", keys="1" * 5)
    store = Store(home)
    frame = store.comparisons(store.run().run_id)
    clusters = dict(zip(frame["pair_id"].to_list(), frame["prompt_digest"].to_list(), strict=True))
    rows = read_rows(Path("gold.jsonl"))
    assert len(rows) == 5 and all(clusters[row["pair_id"]] == row["prompt_id"] for row in rows)


def test_undo_leaves_history(label: Any) -> None:
    """A label taken back and given anew leaves three rows, and one label: the last."""
    label("--n", "3", keys="3 u 4 1 2 u u 3 3")
    rows = read_rows(Path("gold.jsonl"))
    assert [row.get("revises", False) for row in rows] == [False, True, True, False, False, True, True, True, True]
    gold = GoldSet.read("gold.jsonl")
    assert [str(item.labels[0].outcome) for item in gold.items] == ["tie"] * 3
    assert all(len(item.labels) == 1 for item in gold.items)


def test_the_same_command_goes_on_where_it_stopped(label: Any) -> None:
    """Quitting keeps the progress; the next sitting sees only what is left, with nothing named again."""
    first = label("--n", "6", "--seed", "4", keys="1 2 q")
    assert (first.code, "judge label --to gold.jsonl --as ada" in first.err) == (0, True)
    again = label(keys="3")
    assert "2 of 6 done, 4 to go" in again.err and "3 of 6 done, 3 to go" in again.err
    assert len(GoldSet.read("gold.jsonl")) == 3
    status = label("--status", "--json", who="")
    assert json.loads(status.out)["annotators"][0]["labelled"] == 3
    assert "ada" in label("--status", who="").out


def test_several_annotators_label_one_draw_and_agreement_comes_last(label: Any) -> None:
    """A second person sees the same pairs in another order; agreement is told to who is done, and to nobody before."""
    label("--n", "12", keys="3" * 12)
    half = label(keys="3" * 6, who="ben")
    assert "agree" not in half.err
    whole = label("--json", keys="3333 1 1", who="ben")
    assert "ada and ben agree on 83% [" in whole.err and "of 12 shared pairs" in whole.err
    assert json.loads(whole.out)["agreement"][0]["n"] == 12
    order = {
        who: [row["pair_id"] for row in read_rows(Path("gold.jsonl")) if row["annotator"] == who]
        for who in ("ada", "ben")
    }
    assert sorted(order["ada"]) == sorted(order["ben"]) and order["ada"] != order["ben"]
    expert = label("--draw", "disputed", "--json", keys="1 1", who="eve")
    assert json.loads(expert.out)["labelled"] == 2
    assert len(GoldSet.read("gold.jsonl").annotators) == 3


def test_files_of_one_draw_are_joined_by_cat(label: Any) -> None:
    """Two people with files of their own and one seed label the same pairs; their files together are one gold set."""
    for draw in (["random"], ["stratified", "--by", "risk"], ["active"]):
        name = draw[0]
        for who in ("ada", "ben"):
            label("--draw", *draw, "--n", "8", keys="1" * 8, who=who, to=f"{name}-{who}.jsonl")
        both = Path(f"{name}-ada.jsonl").read_text() + Path(f"{name}-ben.jsonl").read_text()
        gold = GoldSet.from_lines(both.splitlines())
        assert [len(item.labels) for item in gold.items] == [2] * 8


def test_nothing_on_the_screen_tells_who_wrote_what(label: Any) -> None:
    """Before the vote there is no name, id, category, run, file or verdict: the texts and the keys, nothing else."""
    for draw in (["--n", "12"], ["--draw", "active", "--n", "12", "--to", "b.jsonl"]):
        shown = label(*draw, keys="1 2 3 4 s u s r ? 1\nn x\nc 2").err
        before = shown[: shown.index("\nada: ")]
        rubric = re.compile(r"── Rubric.*?(?=\n\d+ of )", re.DOTALL)
        assert rubric.search(before) and "Question" in before
        assert [word for word in SECRETS if word in rubric.sub("", before)] == []


def test_what_is_hidden_is_said_once_a_sitting(label: Any, tmp_path: Path) -> None:
    """Items with sources under a rubric that judges without: the sentence stands on the first pair, not on each."""
    rows = [
        {
            "id": f"r{n}",
            "prompt": f"Q{n}?",
            "candidate": "one",
            "baseline": "two",
            "context": ["a source"] * (1 + n % 2),
        }
        for n in range(4)
    ]
    (tmp_path / "sources.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    named = ("--evalset", str(tmp_path / "sources.jsonl"), "-r", "helpfulness@1", "--draw", "all")
    shown = label(*named, keys="1 1 1 1").err
    assert shown.count("Not shown here, nor to the judge:") == 1
    assert shown.count("Request") >= 4


@pytest.mark.parametrize("draw", ["random", "stratified", "active", "escalated --below 0.505"])
def test_labels_correct_the_win_rate_of_their_run(label: Any, home: Path, draw: str) -> None:
    """Labels of each kind of draw, given by keyboard, are accepted by win_rate, which gives a corrected interval."""
    done = label("--n", "45", "--draw", *draw.split(), "--json", keys="1 2 3 1 2 " * 12)
    store = Store(home)
    rate = win_rate(run_evidence(store, store.run()).run, GoldSet.read("gold.jsonl"))
    assert isinstance(rate.corrected, Estimate), rate.corrected
    assert rate.labels == json.loads(done.out)["labelled"] == json.loads(done.out)["draw"]["pairs"] >= 45
    assert rate.judged == 60
    assert rate.corrected.low < rate.corrected.value < rate.corrected.high
    assert rate.notes == ()


def test_a_draft_is_named_as_the_run_names_it(label: Any, home: Path, tmp_path: Path) -> None:
    """Under a draft rubric the labels carry the digest that the run carries, and an edited draft is another one."""
    draft = tmp_path / "draft.md"
    text = (
        "---\nname: mine\nversion: 1\ntitle: Mine\nsummary: Own.\ncriteria:\n  - id: a\n    text: Right.\n"
        "    weight: 1\n---\nJudge.\n"
    )
    draft.write_text(text)
    path = evalset(tmp_path / "set.jsonl", 8)
    assert _run(["run", str(path), "-j", "scripted:longer", "-r", str(draft)]) == 0
    label("--n", "4", keys="1 2")
    store = Store(home)
    names = {item.rubric for item in GoldSet.read("gold.jsonl").items}
    assert names == {run_evidence(store, store.run()).run.rubric} and "mine@1#" in names.pop()
    assert "Mine" in label(keys="r").err
    draft.write_text(text.replace("Right.", "Wrong."))
    assert "its labels are about rubric 'mine@1#" in label("--rubric", str(draft), keys="1").err


def test_an_eval_set_is_labelled_before_any_judge(label: Any, tmp_path: Path) -> None:
    """--evalset needs no run; the same pairs judged later carry the same names, and the labels go on from the run."""
    path = evalset(tmp_path / "fresh.jsonl", 10, model="zeta-9")
    done = label("--evalset", str(path), "--n", "4", "--rubric", "helpfulness@1", "--json", keys="1 2")
    assert (done.code, json.loads(done.out)["next"]) == (0, "judge label --to gold.jsonl --as ada")
    assert _run(["run", str(path), "-j", "scripted:longer", "-r", "helpfulness@1"]) == 0
    done = label("latest", "--json", keys="1 2")
    assert json.loads(done.out)["next"].startswith("judge run ")
    assert {item.candidate for item in GoldSet.read("gold.jsonl").items} == {"zeta-9"}


def test_answer_files_are_joined_and_named_again(label: Any, tmp_path: Path) -> None:
    """Prompts with answer files and named columns are labelled, too; the printed command judges them."""
    for name, column in (("set", "question_text"), ("new", "text"), ("old", "text")):
        rows = [{"id": f"q{n}", column: f"{name} {n}", "model": f"{name}-model"} for n in range(4)]
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    files = ["--evalset", "set.jsonl", "-c", "new.jsonl", "-b", "old.jsonl", "--map", "prompt=question_text"]
    done = label(*files, "--json", keys="1 2 3 1")
    assert done.code == 0, done.err
    command, _, then = json.loads(done.out)["next"].partition(" && ")
    assert then == "judge calibrate --gold gold.jsonl"
    assert _run([*shlex.split(command)[1:], "-j", "scripted:longer"]) == 0
    assert label("latest", keys="").code == 0
    assert {item.candidate for item in GoldSet.read("gold.jsonl").items} == {"new-model"}


def test_another_draw_or_subject_is_refused_and_a_larger_one_said(label: Any, tmp_path: Path) -> None:
    """One file holds one draw of one comparison: a change is refused with the reason, an extension is told."""
    label("--n", "6", keys="1 2")
    before = Path("gold.jsonl").read_bytes(), Path("gold.draw.jsonl").read_bytes()
    other = evalset(tmp_path / "other.jsonl", model="zeta-small")
    for args, message in (
        (["--draw", "active"], "its draw was fixed with --draw random"),
        (["--seed", "1"], "its draw was fixed with --seed 0"),
        (["--n", "3"], "a draw never shrinks"),
        (["--evalset", str(other)], "candidate 'zeta-large', this would add labels about candidate 'zeta-small'"),
        (["--rubric", "correctness"], "about rubric 'helpfulness@1'"),
    ):
        done = label(*args, keys="1")
        assert (done.code, message in done.err) == (2, True), done.err
    assert before == (Path("gold.jsonl").read_bytes(), Path("gold.draw.jsonl").read_bytes())
    done = label("--n", "9", keys="1" * 9)
    assert "extended from 6 to 9 pairs" in done.err and "9 labels" in done.err
    assert {row["probability"] for row in read_rows(Path("gold.jsonl"))} == {6 / 60, 9 / 60}
    Path("gold.draw.jsonl").unlink()
    assert "no gold.draw.jsonl that says how" in label(keys="1").err


@pytest.mark.parametrize(
    ("args", "keys", "message"),
    [
        ([], None, "no terminal and nothing piped in"),
        ([], "", "no key came on stdin"),
        ([], "1 x", "stdin: 'x' is no key"),
        (["--n", "61"], "1", "61 pairs cannot be drawn from 60"),
        (["--draw", "disputed"], "1", "no labels yet"),
        (["--draw", "escalated", "--n", "5"], "1", "escalated"),
        (["--draw", "escalated", "--below", "0.505", "--n", "59"], "1", "there are only 53 others"),
        (["--draw", "stratified", "--by", "riks"], "1", "there are category, risk"),
        (["--by", "risk"], "1", "--by names the strata of --draw stratified"),
        (["--as", "a\x1b[2J"], "1", "say who labels"),
        (["--as", ""], "1", "say who labels"),
        (["r-none"], "1", "is not a run here"),
        (["latest", "--evalset", "x.jsonl"], "1", "not both"),
        (["--evalset", "none.jsonl"], "1", "none.jsonl: no such file"),
        (["--evalset", "zv.jsonl", "--draw", "active", "--n", "2"], "1", "needs a judged run"),
        (["--to", "gold.csv"], "1", "labels are JSON lines"),
        (["--status", "--to", "none.jsonl"], "1", "no draw here yet"),
    ],
)
def test_bad_input_exits_2_with_one_message(
    label: Any, tmp_path: Path, args: list[str], keys: str | None, message: str
) -> None:
    """What is wrong and how to go on, in one message, and no label file where there is nothing to label."""
    evalset(tmp_path / "zv.jsonl", 5)
    done = label(*args, keys=keys)
    assert (done.code, message in done.err) == (2, True), done.err
    rows = read_rows(Path("gold.jsonl"))
    assert len(rows) == (1 if keys == "1 x" else 0)


def test_a_closed_stdin_is_an_error(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Without any stdin the command says that it needs a person or piped keys."""
    monkeypatch.setattr(sys, "stdin", None)
    assert _run(["label", "--to", "gold.jsonl", "--as", "ada"]) == 2
    assert "stdin is closed" in capsys.readouterr().err
    assert not isinstance(sys.stdin, io.IOBase)


# A real terminal.


class Terminal:
    """`judge label` on a pseudo-terminal of its own; keys go in one by one, what it shows comes out as bytes."""

    def __init__(self, *args: str, rows: int = 30, columns: int = 80, env: dict[str, str] | None = None) -> None:
        self.master, slave = os.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(slave)
        code = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from judge.cli import main; main()"
        self.child = subprocess.Popen(
            [sys.executable, "-c", code, "label", *args],
            stdin=slave, stderr=slave, stdout=subprocess.PIPE, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(REPO), "TERM": "xterm", "NO_COLOR": "", **(env or {})},
        )  # fmt: skip
        self.slave = slave
        self.seen = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.child.poll() is None:
            self.child.kill()
        assert self.child.stdout is not None
        self.child.stdout.close()
        self.child.wait()
        os.close(self.master)
        os.close(self.slave)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait(self, text: str) -> str:
        """Read until a text appears among the new bytes; gives them back."""
        deadline = time.monotonic() + 60
        new = b""
        while text.encode() not in new:
            ready, _, _ = select.select([self.master], [], [], 0.2)
            if ready:
                new += os.read(self.master, 65536)
            elif time.monotonic() > deadline or self.child.poll() is not None:
                raise AssertionError(f"{text!r} not shown:\n{new.decode(errors='replace')}")
        self.seen += new
        return new.decode(errors="replace")

    def press(self, keys: str, text: str) -> str:
        os.write(self.master, keys.encode())
        return self.wait(text)

    def end(self) -> int:
        """Wait for the end, read what is left."""
        deadline = time.monotonic() + 60
        while self.child.poll() is None and time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.05)[0]:
                self.seen += os.read(self.master, 65536)
        while select.select([self.master], [], [], 0)[0]:
            self.seen += os.read(self.master, 65536)
        return self.child.wait(timeout=5)

    @property
    def restored(self) -> bool:
        """Whether the terminal is as it was: line mode with echo, out of the alternate screen, cursor shown."""
        same = termios.tcgetattr(self.slave)[:4] == self.before[:4]
        return same and self.seen.rfind(b"\x1b[?1049l") > self.seen.rfind(b"\x1b[?1049h")


def test_a_session_by_keyboard_alone(home: Path, tmp_path: Path) -> None:
    """Single keys without Enter: votes, note, closeness, rubric, help, undo, skip, the end; nothing leaks."""
    with Terminal("--to", "gold.jsonl", "--as", "ada", "--n", "4") as person:
        person.wait("0 of 4 done, 4 to go")
        person.press("1", "1 of 4 done")
        person.press("n", "note (Enter keeps")
        person.press("no sourceX\x7f\r", "note: no source")
        person.press("c", "closeness: far apart")
        person.press("2", "2 of 4 done")
        start = len(person.seen)
        person.press("r", "Rubric: General helpfulness")
        person.press("q", "2 of 4 done")
        rubric = slice(start, len(person.seen))  # the rubric's own words may be any
        person.press("?", "Judge by the rubric alone")
        person.press("x", "2 of 4 done")
        person.press("x", "no such key")
        person.press("s", "3 of 4 done, 1 to go, 1 skipped")
        person.press("u", "2 of 4 done")
        person.press("3", "3 of 4 done")
        person.press("4", "every pair is done")
        person.press("1", "u takes the last label back, q ends")
        shown = person.seen[: rubric.start] + person.seen[rubric.stop :]
        before = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown).decode()
        assert person.press("q", "next: judge calibrate r-")
        assert person.end() == 0
        assert person.restored
    assert "Question" in before
    assert [word for word in SECRETS if word in before] == []
    gold = GoldSet.read("gold.jsonl")
    assert sorted(str(item.labels[0].outcome) for item in gold.items).count("tie") == 2
    assert "no source" in {item.labels[0].rationale for item in gold.items}


def test_long_answers_scroll_and_wide_screens_show_both(home: Path, tmp_path: Path) -> None:
    """No text is cut in silence: what does not fit is announced and reached by space; wide screens show columns."""
    path = tmp_path / "long.jsonl"
    text = "\n".join(f"line {n} of it" for n in range(60))
    path.write_bytes(orjson.dumps({"prompt": HOSTILE, "candidate": text + " END-A", "baseline": HOSTILE + " END-B"}))
    with Terminal("--to", "gold.jsonl", "--as", "ada", "--evalset", str(path), rows=20, columns=60) as person:
        shown = person.wait("q quit")
        assert "more lines below: space" in shown and not ("END-A" in shown and "END-B" in shown)
        seen = shown
        for _ in range(8):
            seen += person.press(" ", "q quit")
        assert "END-A" in seen and "END-B" in seen and "--- end: b goes back ---" in seen
        assert all(f"line {n} of it" in seen for n in range(60))
        assert "lines 1-" in person.press("bbbbbbbbbbbb", "q quit") or person.wait("lines 1-")
        person.resize(40, 150)
        os.kill(person.child.pid, signal.SIGWINCH)
        wide = person.wait("─ ── Second ─")
        assert re.search(r"── First ─+ ── Second ─+", wide)
        for bad in (b"\x1b]", b"\x07", b"\x00", "\u202e".encode(), "\x9b".encode()):
            assert bad not in person.seen
        person.press("1", "every pair is done")
        os.write(person.master, b"q")
        assert person.end() == 0
    assert len(GoldSet.read("gold.jsonl")) == 1


def long_pair(tmp_path: Path, lines: int = 40) -> Path:
    """An eval set of one pair with answers of so many lines."""
    path = tmp_path / "long.jsonl"
    text = "\n".join(f"line {n} of it" for n in range(lines))
    path.write_bytes(orjson.dumps({"prompt": "Q?", "candidate": f"{text} A", "baseline": f"{text} B"}))
    return path


def test_a_vote_on_unseen_text_is_asked_once_more(home: Path, tmp_path: Path) -> None:
    """A vote while lines were never shown asks once, with their number; the next one counts, whatever was noted."""
    args = ("--to", "gold.jsonl", "--as", "ada", "--evalset", str(long_pair(tmp_path)))
    with Terminal(*args, rows=20, columns=60) as person:
        below = re.search(r"--- (\d+) more lines below: space ---", person.wait("q quit"))
        assert below
        asked = person.press("1" * 5, "q quit")
        assert f"{below[1]} more lines below; press again to vote" in asked
        assert f"--- {below[1]} more lines below: space ---" in asked and not read_rows(Path("gold.jsonl"))
        person.press("2", "every pair is done")
        os.write(person.master, b"q")
        assert person.end() == 0
    assert len(read_rows(Path("gold.jsonl"))) == 1


def test_who_has_scrolled_to_the_end_is_not_asked(home: Path, tmp_path: Path) -> None:
    """Once the last line was on the screen a vote counts at once, also from the top and after the help."""
    args = ("--to", "gold.jsonl", "--as", "ada", "--evalset", str(long_pair(tmp_path, 20)))
    with Terminal(*args, rows=24, columns=60) as person:
        person.wait("q quit")
        for _ in range(4):
            person.press(" ", "q quit")
        person.press("bbbb", "lines 1-")
        person.press("?", "Judge by the rubric alone")
        person.press("x", "lines 1-")
        person.press("1", "every pair is done")
        os.write(person.master, b"q")
        assert person.end() == 0
    assert b"press again" not in person.seen


def test_a_narrow_screen_cuts_neither_header_nor_help(home: Path, tmp_path: Path) -> None:
    """At 40 columns the place in the text stands whole; every key of the help stands on one line."""
    args = ("--to", "gold.jsonl", "--as", "ada", "--evalset", str(long_pair(tmp_path, 60)))
    with Terminal(*args, rows=30, columns=40) as person:
        shown = person.wait("q quit")
        total = re.search(r"lines 1-(\d+) of (\d+)\x1b", shown)
        assert total and int(total[2]) > 99 and "0 of 1 done, 1 to go\x1b" in shown
        help_ = person.press("?", "said.")
        for line in ("│ s  skip: the pair comes back next time", "│ c  closeness: far, in between, equal"):
            assert f"{line}\r\n" in help_ or f"{line}\n" in help_
        person.press("x", "lines 1-")
        person.press("\x03", "go on with")
        person.end()


def test_a_hint_is_gone_while_a_note_is_typed(home: Path) -> None:
    """What the last key left on the screen does not stay beside the note."""
    with Terminal("--to", "gold.jsonl", "--as", "ada", "--n", "2") as person:
        person.wait("q quit")
        assert "no such key" in person.press("x", "q quit")
        noted = person.press("n", "note (Enter keeps")
        assert "no such key" not in noted
        person.press("\x03", "go on with")
        person.end()


def test_one_label_is_told_in_the_singular(label: Any) -> None:
    """The summary of one label says label, not labels."""
    done = label("--n", "3", keys="1 q").err
    assert "ada: 1 label, 0 skipped" in done and "this sitting: 1 label, 0 undone" in done


def test_keys_typed_before_a_pair_is_shown_are_no_votes(home: Path) -> None:
    """What was typed before a pair stood on the screen is thrown away: a key held down votes once."""
    with Terminal("--to", "gold.jsonl", "--as", "ada", "--n", "30") as person:
        os.write(person.master, b"1111")
        person.wait("0 of 30 done")
        person.press("1" * 20, "1 of 30 done")
        os.write(person.master, b"q")
        assert person.end() == 0
    assert len(GoldSet.read("gold.jsonl")) == 1


def test_ctrl_c_restores_the_terminal_and_says_how_to_go_on(home: Path) -> None:
    """An interrupt exits 130 with every label kept; so does a termination, with the terminal as it was."""
    with Terminal("--to", "gold.jsonl", "--as", "ada", "--n", "9") as person:
        person.wait("0 of 9 done")
        person.press("1", "1 of 9 done")
        person.press("\x03", "go on with: judge label --to gold.jsonl --as ada")
        assert (person.end(), person.restored) == (130, True)
    with Terminal("--to", "gold.jsonl", "--as", "ada") as person:
        person.wait("1 of 9 done")
        person.child.send_signal(signal.SIGTERM)
        assert (person.end(), person.restored) == (143, True)
    assert len(GoldSet.read("gold.jsonl")) == 1


def test_no_color_sends_no_escape(home: Path) -> None:
    """NO_COLOR on a terminal still takes single keys, and sends not one escape byte."""
    with Terminal("--to", "gold.jsonl", "--as", "ada", "--n", "2", env={"NO_COLOR": "1"}) as person:
        person.wait("0 of 2 done")
        person.press("1", "1 of 2 done")
        person.press("2", "every pair is done")
        person.press("q", "next: judge calibrate")
        assert person.end() == 0
        assert b"\x1b" not in person.seen


def test_kill_9_between_any_two_keys_loses_nothing(home: Path) -> None:
    """A process killed at any moment leaves a readable file that lacks at most the last key."""
    done = 0
    for pause in (0.0, 0.002, 0.01):
        with Terminal("--to", "gold.jsonl", "--as", "ada", "--n", "40") as person:
            person.wait(f"{done} of 40 done")
            for _ in range(2):
                done += 1
                person.press("12"[done % 2], f"{done} of 40 done")
            os.write(person.master, b"3")
            time.sleep(pause)
            person.child.send_signal(signal.SIGKILL)
            person.child.wait()
        kept = len(GoldSet.read("gold.jsonl"))
        assert kept in (done, done + 1)
        done = kept


def test_ctrl_z_gives_the_shell_its_terminal_back(home: Path) -> None:
    """Suspended, the terminal is as it was; continued, the pair stands there again and takes keys."""
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("needs bash for job control")
    code = (
        "import fcntl, os, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv("
        + repr(shell)
        + ", ['bash', '--norc', '-i'])"
    )
    command = f"{sys.executable} -c 'from judge.cli import main; main()' label --to gold.jsonl --as ada --n 3"
    with Terminal.__new__(Terminal) as person:
        person.master, person.slave = os.openpty()
        person.resize(30, 80)
        person.seen = b""
        person.child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=person.slave, stderr=person.slave, stdout=subprocess.PIPE,
            start_new_session=True, env={**os.environ, "PYTHONPATH": str(REPO), "TERM": "xterm", "PS1": "shell> "},
        )  # fmt: skip
        person.wait("shell> ")
        os.write(person.master, command.encode() + b"\n")
        person.wait("0 of 3 done")
        stopped = person.press("\x1a", "shell> ")
        assert "\x1b[?1049l" in stopped
        person.press("fg\n", "0 of 3 done")
        person.press("1", "1 of 3 done")
        person.press("q", "to go (random draw")
    assert len(GoldSet.read("gold.jsonl")) == 1
