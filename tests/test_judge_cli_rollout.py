"""`judge rollout` as a user meets it: started by a decision, moved by evidence, taken back with one command."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from judge.decision import Decision, Word
from judge.errors import InputError
from judge.flags import FlagFile, RolloutProvider, flag_path
from judge.policy import load_policy
from judge.register import Register
from judge.rollout import follow
from judge.store import Store

AT = "2026-11-30T00:00:00+00:00"
POLICY = load_policy("default")


def judge(*args: str | Path, home: Path) -> SimpleNamespace:
    """Run the command line in this process: exit code, stdout and stderr."""
    from judge.cli import _run

    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, {"JUDGE_HOME": str(home)}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = _run([str(arg) for arg in args])
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def shipped(home: Path, word: Word = Word.SHIP) -> str:
    """A recorded decision."""
    decision = Decision(word, "r-1", "new", "old", POLICY.ref, POLICY.digest, f"{word}.", ())
    body = {**decision.to_dict(), "policy_text": POLICY.text}
    return Register(home).append("decision", "r-1", body, at=AT).id


def log(home: Path, path: Path, units: int, *, harm: float = 0.0) -> None:
    """Serve requests by the flag and log them."""
    rng = random.Random(units)
    provider = RolloutProvider(flag_path(home, "model"))
    with path.open("a", encoding="utf-8") as file:
        for _ in range(units):
            key = f"u{rng.random()}"
            served = provider.resolve("model", "old", key=key, risk=rng.choice(["low", "high"]))
            for arm in ("baseline", "candidate") if served.shadow else (served.arm,):
                harms = {
                    "error": int(rng.random() < 0.01),
                    "refusal": int(rng.random() < 0.05 + (harm if arm == "candidate" else 0.0)),
                    "complaint": int(rng.random() < 0.02),
                }
                row = {"key": key, "arm": arm, "stage": served.stage, "harms": harms, "eligible": served.eligible}
                file.write(json.dumps(row) + "\n")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_only_a_ship_starts_a_rollout_and_one_flag_has_one(home: Path) -> None:
    """HOLD and BLOCK start nothing; a second rollout of the same flag is refused while the first is under way."""
    for word in (Word.HOLD, Word.BLOCK):
        refused = judge("rollout", "start", shipped(home, word), home=home)
        assert refused.returncode == 2
        assert "only SHIP starts a rollout" in refused.stderr
    assert not flag_path(home, "model").exists()
    done = judge("rollout", "start", shipped(home), "--by", "ada", "--json", home=home)
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    assert (body["state"], body["share"], body["candidate"]) == ("shadow", 0.0, "new")
    again = judge("rollout", "start", shipped(home), home=home)
    assert again.returncode == 2
    assert "is at 'shadow' on flag 'model'; end it first" in again.stderr
    assert judge("rollout", "start", shipped(home), "--flag", "voice", home=home).returncode == 0
    same = judge("rollout", "start", shipped(home), "--flag", "x", "--candidate", "old", home=home)
    assert "candidate and baseline are both called 'old'" in same.stderr


def test_a_log_that_loses_an_optional_metric_on_the_way_holds(home: Path, tmp_path: Path) -> None:
    """Complaints were logged in the shadow, and a new traffic file of the next stage does not say them: the register
    remembers, and the guard holds although the policy does not require it.
    """
    text = POLICY.text.replace("name: default\n", "name: mine\n")
    text = text.replace("- metric: complaint\n", "- metric: complaint\n      required: false\n")
    decision = Decision(Word.SHIP, "r-1", "new", "old", "mine@2", "d", "SHIP.", ())
    name = Register(home).append("decision", "r-1", {**decision.to_dict(), "policy_text": text}, at=AT).id
    assert judge("rollout", "start", name, home=home).returncode == 0
    shadow, later = tmp_path / "shadow.jsonl", tmp_path / "later.jsonl"
    log(home, shadow, 2500)
    assert judge("rollout", "advance", "--traffic", shadow, home=home).returncode == 0
    log(home, later, 300)
    rows = [json.loads(line) for line in later.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        del row["harms"]["complaint"]
    later.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    status = judge("rollout", "status", "--traffic", later, "--json", home=home)
    (guard,) = [one for one in json.loads(status.stdout)["proposal"]["guards"] if one["metric"] == "complaint"]
    assert (guard["move"], guard["why"].rpartition(", ")[2]) == ("hold", "which an earlier stage did")


def test_the_whole_way_there_and_back(home: Path, tmp_path: Path) -> None:
    """Too little traffic holds (4), enough advances (0), a regression wants to go back (1), one command goes back."""
    traffic, adapter = tmp_path / "t.jsonl", tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "weights.safetensors").write_bytes(b"unmerged")
    assert judge("rollout", "start", shipped(home), "--adapter", adapter, home=home).returncode == 0
    log(home, traffic, 60)
    assert judge("rollout", "advance", "--traffic", traffic, home=home).returncode == 4
    log(home, traffic, 2500)
    moved = judge("rollout", "advance", "--traffic", traffic, "--by", "ada", home=home)
    assert moved.returncode == 0, moved.stdout
    entry = Register(home).entries("rollout")[-1]
    assert (entry.body["to"], entry.by, entry.body["forced"]) == ("1%", "ada", False)
    assert entry.body["evidence"]["proposal"]["move"] == "advance"
    forced = judge(
        "rollout", "advance", "--force", "--reason", "we must test", "--by", "ada", "--second", "ben", home=home
    )
    assert forced.returncode == 0, forced.stderr
    assert judge("rollout", "advance", "--force", "--reason", "go on", "--by", "ada", "--second", "ADA", home=home
                 ).returncode == 2  # fmt: skip
    log(home, traffic, 16_000, harm=0.25)
    status = judge("rollout", "status", "--traffic", traffic, "--json", home=home)
    assert status.returncode == 1
    assert json.loads(status.stdout)["proposal"]["move"] == "roll back"
    refused = judge("rollout", "advance", "--traffic", traffic, home=home)
    assert refused.returncode == 1
    assert "judge rollout rollback" in refused.stderr
    back = judge("rollout", "rollback", "--reason", "refusals rise", "--by", "ben", home=home)
    assert "--confirm RUN" in judge("rollout", "status", home=home).stderr, "the next step is told until it is done"
    assert back.returncode == 0, back.stderr
    assert "kept, unchanged" in back.stderr
    assert (adapter / "weights.safetensors").read_bytes() == b"unmerged"
    served = FlagFile(flag_path(home, "model")).read()
    assert served is not None
    assert (served.share, served.state) == (0.0, "rolled back")
    assert judge("rollout", "rollback", "--reason", "again", home=home).returncode == 2
    told = judge("rollout", "log", home=home)
    assert [line.split("-> ")[1].split("  ")[0] for line in told.stdout.splitlines()] == [
        "shadow", "1%", "5%", "rolled back",
    ]  # fmt: skip


def test_two_who_advance_at_once_move_it_by_the_table(home: Path) -> None:
    """Whoever comes second is held against what the register says by then; the history stays one that can be read."""
    assert judge("rollout", "start", shipped(home), "--by", "ada", home=home).returncode == 0
    code = "import sys; from judge.cli import _run; sys.exit(_run(sys.argv[1:]))"
    args = [
        "rollout",
        "advance",
        "--force",
        "--reason",
        "go on now",
        "--by",
        "ada",
        "--second",
        "ben",
        "--home",
        str(home),
    ]
    at_once = [
        subprocess.Popen([sys.executable, "-c", code, *args], stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    ends = [(process.communicate()[1], process.returncode) for process in at_once]
    assert {code for _, code in ends} <= {0, 2}
    events = Register(home).entries("rollout")
    assert len(events) == 1 + sum(code == 0 for _, code in ends)
    served = FlagFile(flag_path(home, "model")).read()
    assert served is not None
    assert (served.state, served.sequence) == (events[-1].body["to"], len(events))
    back = judge("rollout", "rollback", "--reason", "enough", home=home)
    assert back.returncode == 0, back.stderr


def test_an_event_is_held_against_what_stands_when_its_turn_comes(home: Path) -> None:
    """A move that was right when it was thought of is refused once somebody else has moved or started."""
    assert judge("rollout", "start", shipped(home), home=home).returncode == 0
    first = Register(home).entries("rollout")[0]
    stale = {"event": "advance", "to": "1%"}
    follow([first], first.subject, stale)
    second = Register(home).append("rollout", first.subject, stale, at=AT)
    with pytest.raises(InputError, match="is at '1%' now: somebody moved it meanwhile"):
        follow([first, second], first.subject, stale)
    follow([first, second], first.subject, {"event": "rollback", "to": "rolled back"})
    with pytest.raises(InputError, match="end it first"):
        follow([first, second], "ro-other", dict(first.body))


def test_an_old_rollout_is_not_taken_back_over_a_newer_one(home: Path) -> None:
    """While a newer rollout moves the flag, rolling back the one before it is refused and serves nothing."""
    assert judge("rollout", "start", shipped(home), home=home).returncode == 0
    old = Register(home).entries("rollout")[0].subject
    force = ["--force", "--reason", "go on now", "--by", "ada", "--second", "ben"]
    for _ in range(4):
        assert judge("rollout", "advance", *force, home=home).returncode == 0
    names = ["--candidate", "newer", "--baseline", "new"]
    assert judge("rollout", "start", shipped(home), *names, home=home).returncode == 0
    before = flag_path(home, "model").read_bytes()
    refused = judge("rollout", "rollback", old, "--reason", "no good", home=home)
    assert refused.returncode == 2
    assert "end it first" in refused.stderr
    assert flag_path(home, "model").read_bytes() == before
    assert judge("rollout", "rollback", "--reason", "no good", home=home).returncode == 0
    assert judge("rollout", "rollback", old, "--reason", "no good either", home=home).returncode == 0
    served = FlagFile(flag_path(home, "model")).read()
    assert served is not None
    assert (served.baseline, served.share) == ("old", 0.0)
    assert judge("rollout", "status", old, home=home).returncode == 0


def test_a_rollback_stops_the_harm_where_the_register_is_damaged(home: Path) -> None:
    """With a broken chain the command fails, and the flag serves the baseline all the same."""
    assert judge("rollout", "start", shipped(home), home=home).returncode == 0
    force = ["--force", "--reason", "go on now", "--by", "ada", "--second", "ben"]
    assert judge("rollout", "advance", *force, home=home).returncode == 0
    register = Register(home).path
    whole = register.read_bytes()
    register.write_bytes(whole.replace(b'"shadow"', b'"shadoW"', 1))
    broken = judge("rollout", "rollback", "--reason", "refusals rise", home=home)
    assert broken.returncode == 2
    assert "serves old again" in broken.stderr
    served = FlagFile(flag_path(home, "model")).read()
    assert served is not None
    assert (served.share, served.state) == (0.0, "rolled back")
    register.write_bytes(whole)
    assert judge("rollout", "status", home=home).returncode == 3
    assert judge("rollout", "rollback", "--reason", "refusals rise", home=home).returncode == 0
    assert judge("rollout", "status", home=home).returncode == 0


@pytest.mark.parametrize("line", ['{"key": "k", "arm": "nobody", "stage": "shadow"}', "{not json"])
def test_a_rollback_does_not_wait_for_traffic_that_can_be_read(home: Path, tmp_path: Path, line: str) -> None:
    """A line that says nothing usable, or no file at all: the baseline is served, and the register says what was not
    read.
    """
    assert judge("rollout", "start", shipped(home), home=home).returncode == 0
    traffic = tmp_path / "t.jsonl"
    traffic.write_text(line + "\n", encoding="utf-8")
    back = judge("rollout", "rollback", "--reason", "harm", "--traffic", traffic, home=home)
    assert back.returncode == 0, back.stderr
    assert "rolled back without evidence" in back.stderr
    assert FlagFile(flag_path(home, "model")).read().share == 0.0
    last = Register(home).entries("rollout")[-1]
    assert last.body["event"] == "rollback"
    assert last.body["evidence"]["unread"]


def test_a_rollout_of_an_older_version_is_still_read(home: Path, tmp_path: Path) -> None:
    """An event of before `lacking` was kept: every guard counts as said, and neither status nor rollback stumbles."""
    assert judge("rollout", "start", shipped(home), home=home).returncode == 0
    guards = [
        {"metric": guard.metric, "margin": 0.01, "passing": 0.05, "estimate": None, "move": "advance", "why": "within"}
        for guard in POLICY.rollout.guards
    ]
    proposal = {"candidates": 300, "baselines": 300, "guards": guards}
    rollout = Register(home).entries("rollout")[-1].subject
    body = {"event": "advance", "to": "1%", "reason": "", "evidence": {"traffic": "t", "proposal": proposal}}
    Register(home).append("rollout", rollout, body, at=AT)
    traffic = tmp_path / "t.jsonl"
    traffic.write_text(
        "".join(
            json.dumps({"key": f"k{n}", "arm": ("candidate", "baseline")[n % 2], "stage": "1%", "harms": {"error": 1}})
            + "\n"
            for n in range(40)
        ),
        encoding="utf-8",
    )
    status = judge("rollout", "status", "--traffic", traffic, "--json", home=home)
    assert status.returncode in (1, 3, 4), status.stderr
    assert judge("rollout", "rollback", "--reason", "harm", "--traffic", traffic, home=home).returncode == 0


def test_a_canary_run_confirms_a_rollback(home: Path, tmp_path: Path) -> None:
    """Only a finished run, made after the rollback, whose answers are the baseline's and not worse confirms it."""

    def canary(model: str, *, words: int = 5) -> str:
        rows = [
            {"id": f"p{k}", "prompt": f"q{k}", "candidate": {"text": "word " * words, "model": model},
             "baseline": {"text": "word " * 5, "model": "old"}}
            for k in range(25)
        ]  # fmt: skip
        path = tmp_path / f"canary-{model}-{words}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        before = {run.run_id for run in Store(home).runs()}
        assert judge("run", path, "-j", "scripted:longer", home=home).returncode == 0
        (made,) = {run.run_id for run in Store(home).runs()} - before
        return made

    early = canary("old", words=2)
    # The clock of a record has whole seconds: an earlier run must be seen to be earlier.
    start = {**json.loads(_start()), "to": "shadow"}
    Register(home).append("rollout", "ro-1", start, at="2026-01-01T00:00:00+00:00")
    assert judge("rollout", "rollback", "ro-1", "--confirm", early, home=home).returncode == 2
    Register(home).append(
        "rollout", "ro-1", {"event": "rollback", "to": "rolled back", "reason": "r"}, at="2026-01-02T00:00:00+00:00"
    )
    for run_id, says in ((canary("new"), "the baseline is not served"), (early, "shown to be worse")):
        done = judge("rollout", "rollback", "ro-1", "--confirm", run_id, home=home)
        assert done.returncode == 1
        assert says in done.stderr
    late = judge("rollout", "rollback", "ro-1", "--confirm", canary("old"), home=home)
    assert late.returncode == 0, late.stderr
    # 25 ties of 25: the rule of three leaves 1 - 0.025^(1/25) of them open, each at worst a loss.
    said = "answers in 50.0% [43.1, 56.9] of 25 comparisons (50% = alike): shown to lose "
    assert "old answers again; preferred over the baseline" in late.stderr
    assert f"{said}at most 6.9 points" in late.stderr
    body = Register(home).entries("rollout")[-1].body
    assert body["to"] == "restored"
    assert (body["shown"]["value"], body["shown"]["n"]) == (0.5, 25)
    assert body["shown"]["low"] == pytest.approx(0.5 * 0.025 ** (1 / 25))


def _start() -> str:
    return json.dumps(
        {
            "event": "start", "flag": "model", "licence": "decision-1", "run": "r-1", "candidate": "new",
            "baseline": "old", "plan": POLICY.rollout.model_dump(mode="json"), "policy": POLICY.ref, "salt": "s",
            "adapter": {},
        }
    )  # fmt: skip


def test_a_flag_that_says_something_else_is_told(home: Path, tmp_path: Path) -> None:
    """Status compares what is served with what the register says: exit 3 where they differ."""
    assert judge("rollout", "start", shipped(home), home=home).returncode == 0
    path = flag_path(home, "model")
    path.write_text("{}", encoding="utf-8")
    done = judge("rollout", "status", home=home)
    assert done.returncode == 3
    assert "readers keep their last good value" in done.stderr
    back = judge("rollout", "rollback", "--reason", "the flag was damaged", home=home)
    assert back.returncode == 0
    assert judge("rollout", "status", home=home).returncode == 0


def test_bad_input_is_one_clear_error(home: Path, tmp_path: Path) -> None:
    """No rollout, an unknown one, a traffic log with a bad line, no evidence: exit 2, nothing written."""
    none = judge("rollout", "advance", home=home)
    assert none.returncode == 2
    assert "no rollout here; start one with" in none.stderr
    assert judge("rollout", "start", shipped(home), home=home).returncode == 0
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"key": "u", "arm": "control", "stage": "shadow", "harms": {}}\n', encoding="utf-8")
    before = (home / "register.jsonl").read_bytes()
    for args, says in (
        (["advance", "ro-nope", "--traffic", bad], "is no rollout here"),
        (["advance", "--traffic", bad], "bad.jsonl:1: field arm"),
        (["advance"], "give the evidence with --traffic"),
        (["rollback"], "give --reason"),
        (["rollback", "--confirm", "latest"], "cannot confirm"),
        (["start", "rollout-"], "a rollout starts from a decision"),
    ):
        done = judge("rollout", *args, home=home)
        assert done.returncode == 2, args
        assert says in done.stderr, done.stderr
    assert (home / "register.jsonl").read_bytes() == before


def test_status_of_no_rollout_says_how_to_start_one(tmp_path: Path) -> None:
    """Nothing under way is no error: exit 0 with the way to start; a name that is none stays an error."""
    done = judge("rollout", "status", home=tmp_path / "empty")
    assert (done.returncode, done.stdout) == (0, "")
    assert "judge rollout start DECISION" in done.stderr
    assert judge("rollout", "status", "--json", home=tmp_path / "empty").stdout == "null\n"
    assert judge("rollout", "status", "ro-1", home=tmp_path / "empty").returncode != 0
