"""The loop: traces drawn with known chances and redacted, failures as cases, what comes next, whether to tune."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from calibration.confidence import Calibration
from calibration.estimates import Estimate
from calibration.gold import GoldSet
from judge.checks.cases import read_cases
from judge.checks.registry import Registry
from judge.checks.suite import load_suite
from judge.cli import _run, root
from judge.errors import InputError
from judge.formats import open_evalset
from judge.register import Register
from judge.rounds import loop_state
from judge.store import Store
from judge.types import Answer, Item, JudgeId
from rubrics.words import pinned
from tune import worth
from tune.failures import Case, Cases, collect, never_again, save, suite_path
from tune.intake import Intake, parse_rule, sample, signal_of
from tune.redaction import Redactor, load_hook

AT = "2026-11-0{}T10:00:00+00:00"


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def call(home: Path, *words: str) -> Result:
    return CliRunner().invoke(root, [*words, "--home", str(home)])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("write to ada.l+x@mail.example.co.uk now", "write to [email] now"),
        ("card 4111 1111 1111 1111 please", "card [card] please"),
        ("order 4111 1111 1111 1112 please", "order 4111 1111 1111 1112 please"),
        ("IBAN DE89 3704 0044 0532 0130 00.", "IBAN [iban]."),
        ("IBAN DE88 3704 0044 0532 0130 00.", None),
        ("call +49 30 901820 or (030) 1234-5678", "call [phone] or [phone]"),
        ("ring +14155550123!", "ring [phone]!"),
        ("my SSN is 219-09-9999", "my SSN is [ssn]"),
        ("from 192.168.0.12 to 2001:0db8:85a3:0000:0000:8a2e:0370:7334", "from [ip] to [ip]"),
        ("key sk-proj-abcDEF1234567890abcd and AKIAIOSFODNN7EXAMPLE", "key [secret] and [secret]"),
        ("Authorization: Bearer abcdefghijklmnop1234", "Authorization: Bearer [secret]"),
        ("db at postgres://bob:hunter2@db.local/x", "db at postgres://[url_login]@db.local/x"),
        ("version 1.2.3.4.5, 3.14159, 2026-11-30, 100-200 pages, item 12345678", None),
        ("at 10:30 on 5-6 May, 1,000,000 people, 1.5-2.5 kg", None),
    ],
)
def test_patterns_take_what_has_the_form_and_leave_what_a_checksum_refutes(text: str, redacted: str | None) -> None:
    """Addresses, cards (Luhn), IBANs (mod 97), numbers, keys; dates, versions and amounts stay."""
    redactor = Redactor()
    assert redactor.text(text) == (text if redacted is None else redacted)
    assert sum(redactor.counts.values()) == (0 if redacted in (None, text) else redacted.count("["))  # type: ignore[union-attr]


def test_every_text_of_a_row_is_redacted_and_a_hook_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nested texts too; keys and numbers stay; the hook sees what patterns left; one that returns none is refused."""
    redactor = Redactor(lambda text: text.replace("Ada", "[name]"))
    row = {"messages": [{"role": "user", "content": "I am Ada, a@b.io"}], "n": 5, "a@b.io": None}
    assert redactor.row(row) == {
        "messages": [{"role": "user", "content": "I am [name], [email]"}],
        "n": 5,
        "a@b.io": None,
    }
    assert redactor.counts == {"email": 1, "hook": 1}
    with pytest.raises(InputError, match="returned NoneType"):
        Redactor(lambda _text: None).text("x")  # type: ignore[arg-type,return-value]
    assert load_hook("os.path:basename")("a/b") == "b"
    for spec in ("nowhere:f", "os.path:nothing", "os.path", "os:sep"):
        with pytest.raises(InputError, match="--redact"):
            load_hook(spec)


def traces(count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"t{n}", "trace_id": f"T{n}", "prompt": f"question {n}",
         "answer": {"text": f"answer {n}", "model": "m-1"},
         "category": "refund" if n % 10 == 0 else "other",
         "feedback": [{"name": "thumbs", "value": -1}] if n % 25 == 0 else []}
        for n in range(count)
    ]  # fmt: skip


def test_the_chance_of_every_row_is_known_and_weights_back_to_the_whole() -> None:
    """Drawn shares follow the rates; the sum of one over the chance estimates what was met; a rule of 1 takes all."""
    intake = Intake(seed=3)
    rules = [parse_rule("signal=bad:1"), parse_rule("category=refund:0.5")]
    rows = list(sample(traces(20_000), rules, Redactor(), intake, rate=0.05))
    assert intake.met == {"signal=bad": 800, "category=refund": 1600, "others": 17_600}
    assert intake.drawn["signal=bad"] == 800
    for stratum, rate in (("category=refund", 0.5), ("others", 0.05)):
        expected = intake.met[stratum] * rate
        assert abs(intake.drawn[stratum] - expected) < 4 * math.sqrt(expected * (1 - rate))
    assert intake.weight == pytest.approx(20_000, rel=0.06)
    for row in rows:
        sampled = row["metadata"]["sampled"]
        assert sampled["chance"] == intake.rates[sampled["stratum"]]
        assert sampled["seed"] == 3


@given(st.integers(0, 2**32), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_larger_rate_draws_what_the_smaller_drew_and_more(seed: int, one: float, other: float) -> None:
    """Samples are nested and depend on nothing but id, seed and rate: two halves give the sample of the whole."""
    low, high = sorted((one, other))
    drawn = lambda rows, rate: [row["id"] for row in sample(rows, [], Redactor(), Intake(seed), rate=rate)]
    whole = traces(60)
    assert set(drawn(whole, low)) <= set(drawn(whole, high))
    assert drawn(whole[:30], low) + drawn(whole[30:], low) == drawn(whole, low)


def test_what_users_made_of_an_answer() -> None:
    """Asking again, escalating, editing and scores of 0 or less are bad; accepting and other scores good."""
    assert signal_of({"actions": [{"kind": "reask"}]}) == "bad"
    assert signal_of({"feedback": [{"name": "thumbs", "value": 0}]}) == "bad"
    assert signal_of({"feedback": [{"name": "thumbs", "value": 1}]}) == "good"
    assert signal_of({"actions": [{"kind": "accept"}]}) == "good"
    assert signal_of({}) == "none"


@pytest.mark.parametrize("rule", ["x", "a=b", "a=b:0", "a=b:2", "=b:0.5", "a=b:x"])
def test_a_rule_that_is_none_is_refused(rule: str) -> None:
    """FIELD=VALUE:RATE, a rate above 0 and at most 1."""
    with pytest.raises(InputError, match="--rate-for takes"):
        parse_rule(rule)


def test_the_queue_is_an_eval_set_whose_baseline_is_what_was_said_in_use(tmp_path: Path, home: Path) -> None:
    """No original passes unredacted, the register knows the strata, the file joins with a candidate's answers."""
    raw = {"format": "langfuse", "raw": {"input": "mail bob@x.io"}}
    source = lines(
        tmp_path / "traces.jsonl",
        *({**row, "prompt": f"{row['prompt']} mail bob@x.io", "foreign": raw} for row in traces(50)),
        {"id": "broken", "prompt": "no answer"},
    )
    queue = tmp_path / "queue.jsonl"
    done = call(home, "loop", "sample", str(source), "-o", str(queue), "--rate", "1", "--json")
    assert done.exit_code == 0, done.output
    body = orjson.loads(done.stdout)
    assert (body["rows"], body["redacted"], body["left"]) == (50, {"email": 50}, {"no id, prompt or answer": 1})
    assert "bob@x.io" not in queue.read_text()
    rows = rows_of(queue)
    assert rows[0]["baseline"] == {"text": "answer 0", "model": "m-1"}
    answers = lines(tmp_path / "new.jsonl", *({"id": row["id"], "answer": "new"} for row in rows))
    assert open_evalset(queue, candidate=answers).rows == 50
    (entry,) = Register(home).entries("intake")
    assert entry.body["strata"]["others"] == {"met": 50, "drawn": 50, "rate": 1.0}
    done = call(home, "loop", "sample", str(source), "-o", str(tmp_path / "q2.jsonl"), "--rate", "0.00001")
    assert "no trace was drawn of 50" in str(done.exception)
    assert not (tmp_path / "q2.jsonl").exists()


def run_of(home: Path, tmp_path: Path, *, candidate: str = "bad", n: int = 12, name: str = "evals") -> str:
    """A finished run in which the scripted judge prefers the longer baseline; returns its id."""
    evals = lines(
        tmp_path / f"{name}.jsonl",
        *(
            {"id": f"{name}-{n}", "prompt": f"{name} prompt {n}", "category": "refund",
             "candidate": {"text": candidate, "model": "c-1234"},
             "baseline": {"text": f"a much longer answer {n}", "model": "base"}}
            for n in range(n)
        ),
    )  # fmt: skip
    done = call(home, "run", str(evals), "--judge", "scripted:longer")
    assert done.exit_code == 0, done.output
    return next(info.run_id for info in Store(home).runs() if info.header["evalset"]["files"] == [str(evals)])


def test_lost_pairs_become_frozen_prompts_and_a_queue_each_with_its_origin(tmp_path: Path, home: Path) -> None:
    """Half by a coin from the prompt; frozen ones carry what must not come again; a third time nothing is left."""
    run_id = run_of(home, tmp_path)
    cases = tmp_path / "cases.jsonl"
    done = call(home, "loop", "failures", run_id, "-o", str(cases), "--name", "round-1")
    assert done.exit_code == 0, done.output
    rows = rows_of(cases)
    assert len(rows) == 12
    frozen = [row for row in rows if row["use"] == "frozen"]
    assert 1 <= len(frozen) <= 11
    assert rows_of(home / "frozen" / "round-1.jsonl") == frozen
    for row in rows:
        assert row["origin"]["run"] == run_id
        assert row["origin"]["source"] == f"run {run_id}"
        assert row["origin"]["why"] and row["origin"]["date"]
        assert row["baseline"]["text"] == "bad"
    assert set(read_cases(home / "frozen" / "round-1.jsonl")) == {row["id"] for row in frozen}
    again = call(
        home, "loop", "failures", run_id, "-o", str(tmp_path / "c2.jsonl"), "--name", "round-2", "--frozen-share", "1"
    )
    assert again.exit_code == 0
    assert f"{len(frozen)} left out: frozen already" in again.stderr
    third = call(home, "loop", "failures", run_id, "-o", str(tmp_path / "c3.jsonl"))
    assert "there is no failure to collect (12 frozen already)" in str(third.exception)


def test_frozen_failures_are_a_suite_that_catches_them_when_they_come_again(tmp_path: Path, home: Path) -> None:
    """`judge check --suite` reruns them: the failed answer fails, another passes, a missing or edited case is seen."""
    run_id = run_of(home, tmp_path, n=3)
    done = call(
        home, "loop", "failures", run_id, "-o", str(tmp_path / "c.jsonl"), "--name", "r1", "--frozen-share", "1"
    )
    assert done.exit_code == 0, done.output
    frozen, suite = home / "frozen" / "r1.jsonl", home / "frozen" / "r1.yaml"
    assert f"judge check {frozen} --suite {suite}" in done.stderr
    names = [row["id"] for row in rows_of(frozen)]

    def checked(*texts: str) -> Result:
        answers = lines(tmp_path / "a.jsonl", *({"id": n, "answer": t} for n, t in zip(names, texts, strict=False)))
        kept = lines(tmp_path / "e.jsonl", *(row for row in rows_of(frozen) if row["id"] in names[: len(texts)]))
        words = ["check", str(kept), "--suite", str(suite), "-c", str(answers), "--json", "--home", str(home)]
        return CliRunner().invoke(root, words, standalone_mode=False)

    good, again, short = checked("not bad", "fine", "ok"), checked(" bad ", "fine", "ok"), checked("fine", "fine")
    assert [one.return_value for one in (good, again, short)] == [0, 1, 4]
    assert orjson.loads(good.stdout)["cases"] == {"total": 3, "unrun": [], "altered": []}
    assert orjson.loads(again.stdout)["blocked_by"]
    assert orjson.loads(short.stdout)["cases"]["unrun"] == [names[2]]
    written = CliRunner().invoke(root, ["cases", "write", str(suite), "-o", str(tmp_path / "prompts.jsonl")])
    assert "wrote 3 prompts" in written.stderr
    lines(frozen, *({**row, "prompt": f"{row['prompt']}!"} for row in rows_of(frozen)))
    assert "edited after it was frozen" in str(checked("a", "b", "c").exception)


@pytest.mark.parametrize(
    ("failed", "comes_again", "another"),
    [
        ("No.", " no.", "No. It opens at nine."),
        ("", "  ", "Nine."),
        ("x" * 3000, "so: " + "x" * 2500, "x" * 1999),
        ("(a+)+$ [", "(a+)+$ [", "aaaa"),
        ("The shop is open " * 5, "Well. " + "The shop is open " * 5, "The shop is closed."),
    ],
)
def test_a_failed_answer_may_not_come_again(failed: str, comes_again: str, another: str) -> None:
    """A short one not as the whole answer, a long one nowhere in it, an empty one not at all."""
    given = never_again(failed)
    check = Registry().build(given["check"], given.get("with", {}))
    said = [check.examine(Item("when?"), Answer(text)) for text in (failed, comes_again, another)]
    assert [one.passed for one in said if one is not None] == [False, False, True]


def test_a_conversation_is_frozen_with_its_tools_and_reference(tmp_path: Path) -> None:
    """Turns, sources and tools are under the digest; the reference stays beside it; equal ids are told apart."""
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "When?"}]},
    ]
    item = {"messages": turns, "context": ["Open at nine."], "tags": ["x"], "reference": "Nine."}
    origin = {"source": "traces", "date": "2026-11-01", "why": "user: reask"}
    other = {"prompt": "Who is it?"}
    found = collect([Case("t", item, "Eight.", "", origin), Case("t", other, "", "", origin)], tmp_path, share=1)
    target = save(found, tmp_path / "out.jsonl", tmp_path, "set")
    assert target is not None
    cases = read_cases(target)
    assert list(cases) == ["t", "t-2"]
    assert [turn.content for turn in cases["t"].item.messages] == ["Be brief.", "When?"]
    assert rows_of(target)[0]["reference"] == "Nine."
    with pytest.raises(InputError, match="it names a file"):
        save(found, tmp_path / "out.jsonl", tmp_path, "../set")


def test_what_was_frozen_refuses_training_data(tmp_path: Path, home: Path) -> None:
    """A training row with a frozen failure's prompt is refused by id, although no --against names the frozen set."""
    run_id = run_of(home, tmp_path)
    call(home, "loop", "failures", run_id, "-o", str(tmp_path / "cases.jsonl"), "--frozen-share", "1")
    data = lines(
        tmp_path / "d.jsonl",
        {"id": "mine", "prompt": "EVALS prompt 3", "chosen": "x", "rejected": "y", "source": "human"},
    )
    done = call(home, "tune", "pairs", str(data), "--unchecked", "-o", str(tmp_path / "o.jsonl"))
    assert f"row mine is exact (1.00) to {run_id}-evals-3" in str(done.exception)


def test_a_decision_names_its_lost_pairs_and_the_examples_of_rules_that_stand_in_the_way(
    tmp_path: Path, home: Path
) -> None:
    """Pairs of a ruling that does not block are no failure; each case names decision and rule."""
    run_id = run_of(home, tmp_path, candidate="a candidate whose answer is longer than that", name="won")
    body = {
        "run_id": run_id, "word": "BLOCK", "candidate": "c-1234",
        "rulings": [
            {"rule": "checks.json", "effect": "BLOCK", "says": "2 of 12 fail", "pairs": ["won-1", "won-2"]},
            {"rule": "length", "effect": "SHIP", "says": "fine", "pairs": ["won-3"]},
        ],
    }  # fmt: skip
    entry = Register(home).append("decision", run_id, body, at=AT.format(1))
    done = call(home, "loop", "failures", entry.id, "-o", str(tmp_path / "cases.jsonl"))
    assert done.exit_code == 0, done.output
    rows = rows_of(tmp_path / "cases.jsonl")
    assert {row["origin"]["pair"] for row in rows} == {"won-1", "won-2"}
    assert {row["origin"]["decision"] for row in rows} == {entry.id}
    assert rows[0]["origin"]["why"] == "BLOCK: checks.json: 2 of 12 fail"


def test_failures_of_an_earlier_round_are_not_overwritten(tmp_path: Path, home: Path) -> None:
    """Where -o exists nothing is collected, written or recorded; --force writes it anew."""
    run_id = run_of(home, tmp_path)
    out = tmp_path / "cases.jsonl"
    out.write_text("of an earlier round\n", encoding="utf-8")
    done = call(home, "loop", "failures", run_id, "-o", str(out))
    assert isinstance(done.exception, InputError) and "or --force" in str(done.exception)
    assert out.read_text(encoding="utf-8") == "of an earlier round\n"
    assert not Register(home).entries("failures")
    assert call(home, "loop", "failures", run_id, "-o", str(out), "--force").exit_code == 0
    assert rows_of(out)


def a_case(name: str, prompt: str) -> Case:
    """A failure with this prompt, found in traces."""
    origin = {"source": "traces t", "date": "2026-10-01", "why": "thumbs down"}
    return Case(name, {"prompt": prompt}, "No.", "", origin)


def test_cases_with_one_id_get_ids_of_their_own(tmp_path: Path, home: Path) -> None:
    """A number is taken only where it is free, and an id that a case brought along stays its own."""
    cases = [
        a_case("a", "How do ships float?"),
        a_case("a", "List the primes below twenty."),
        a_case("a-2", "Translate good morning to French."),
        a_case("a", "What is a monad in Haskell?"),
    ]
    found = collect(cases, home, share=1.0)
    assert [case.id for case in found.frozen] == ["a", "a-3", "a-2", "a-4"]
    target = save(found, tmp_path / "cases.jsonl", home, "first")
    assert target is not None
    assert list(read_cases(target)) == ["a", "a-3", "a-2", "a-4"]


@pytest.mark.parametrize("fails", ["the set", "the file"])
def test_a_set_that_cannot_be_written_whole_takes_no_name(tmp_path: Path, home: Path, fails: str) -> None:
    """Where the set is refused, or the file of all cases cannot be written, neither set nor suite stands, and the name
    is free.
    """
    twice = [a_case("a", "How do ships float?"), a_case("a", "What is a monad in Haskell?")]
    out = tmp_path / "cases.jsonl"
    if fails == "the set":
        with pytest.raises(InputError, match="case a stands twice"):
            save(Cases(tuple(twice), ()), out, home, "first")
    else:
        out.mkdir()
        with pytest.raises(OSError, match=r"cases\.jsonl"):
            save(Cases(tuple(twice[:1]), ()), out, home, "first")
        out.rmdir()
    assert (out.exists(), list((home / "frozen").glob("*"))) == (False, [])
    assert save(Cases(tuple(twice[:1]), ()), out, home, "first") == home / "frozen" / "first.jsonl"


@pytest.mark.parametrize("name", ["@at", "1e3", "-", "null", "a.b@c"])
def test_every_name_of_a_frozen_set_gives_a_suite_that_loads(tmp_path: Path, home: Path, name: str) -> None:
    """The suite names its cases as a quoted text: no name is read as something else."""
    target = save(Cases((a_case("a", "How do ships float?"),), ()), tmp_path / "cases.jsonl", home, name)
    assert target is not None
    assert load_suite(str(suite_path(target))).cases == target


def test_production_failures_keep_the_better_answer_where_there_is_one(tmp_path: Path, home: Path) -> None:
    """Bad traces only; an edit is the better answer; the trace's id and time are the origin."""
    source = lines(
        tmp_path / "traces.jsonl",
        {
            "id": "1",
            "prompt": "why?",
            "answer": {"text": "so"},
            "at": "2026-11-01",
            "actions": [{"kind": "edit", "text": "because"}],
        },
        {"id": "2", "prompt": "who?", "answer": {"text": "me"}, "feedback": [{"name": "thumbs", "value": 1}]},
        {"id": "3", "prompt": "Why?", "answer": {"text": "no"}, "feedback": [{"name": "thumbs", "value": 0}]},
    )
    done = call(home, "loop", "failures", str(source), "-o", str(tmp_path / "cases.jsonl"))
    (row,) = rows_of(tmp_path / "cases.jsonl")
    assert (row["better"], row["origin"]["trace"], row["origin"]["date"]) == ("because", "1", "2026-11-01")
    assert row["origin"]["why"] == "user: edit"
    assert "1 left out: the same prompt as another failure" in done.stderr


def states(home: Path, tmp_path: Path) -> dict[str, str]:
    return {step.name: step.state for step in loop_state(Store(home), tmp_path / "gold").steps}


def test_the_state_of_the_loop_follows_from_what_is_on_the_disk(tmp_path: Path, home: Path) -> None:
    """Step by step: next moves on, a newer data set makes the candidate stale, a decision closes the round."""
    register = Register(home)
    assert states(home, tmp_path)["traces"] == "next"
    assert set(states(home, tmp_path).values()) == {"next", "waiting"}
    register.append("intake", "q", {"strata": {"others": {"met": 10, "drawn": 5, "rate": 0.5}}}, at=AT.format(1))
    assert states(home, tmp_path)["labels"] == "next"
    register.append("dataset", "d1", {"rows": 5, "checked": True}, at=AT.format(2))
    found = states(home, tmp_path)
    assert (found["labels"], found["pairs"], found["candidate"]) == ("skipped", "done", "next")
    register.append("candidate", "c-1234", {"data": "d1"}, at=AT.format(3))
    assert states(home, tmp_path)["evaluation"] == "next"
    run_id = run_of(home, tmp_path)
    found = states(home, tmp_path)
    assert (found["evaluation"], found["gate"]) == ("done", "next")
    decision = register.append("decision", run_id, {"run_id": run_id, "word": "BLOCK"}, at=AT.format(5))
    state = loop_state(Store(home), tmp_path / "gold")
    assert state.rounds == 1
    assert state.next is not None
    assert (state.next.name, state.next.command) == ("failures", f"judge loop failures {decision.id} -o cases.jsonl")
    assert next(step for step in state.steps if step.name == "rollout").says == "none: the gate says BLOCK"
    register.append("failures", decision.id, {"frozen": 3, "queue": 4}, at=AT.format(6))
    assert loop_state(Store(home), tmp_path / "gold").next is None
    register.append("dataset", "d2", {"rows": 9, "extra_validation": True, "checked": False}, at=AT.format(7))
    state = loop_state(Store(home), tmp_path / "gold")
    assert state.next is not None and (state.next.name, state.next.state) == ("candidate", "stale")
    said = {step.name: step.says for step in state.steps}
    assert said["pairs"].endswith("a major change, NOT checked against gold")
    done = call(home, "loop", "status", "--labels", str(tmp_path / "gold"))
    assert "[!] candidate" in done.stdout
    assert "next: judge tune train pairs.jsonl" in done.stdout
    assert orjson.loads(call(home, "loop", "status", "--json").stdout)["next"] == "candidate"


def test_a_shipped_candidate_waits_for_its_rollout(tmp_path: Path, home: Path) -> None:
    """SHIP without a rollout event is not done; with one it shows the stage."""
    register = Register(home)
    register.append("dataset", "d1", {"rows": 5}, at=AT.format(2))
    register.append("candidate", "c-1234", {"data": "d1"}, at=AT.format(3))
    run_id = run_of(home, tmp_path)
    decision = register.append("decision", run_id, {"word": "SHIP"}, at=AT.format(5))
    state = loop_state(Store(home), tmp_path)
    assert state.next is not None and state.next.command == f"judge rollout start {decision.id}"
    register.append("rollout", "ro-0", {"event": "start", "to": "shadow", "licence": "decision-0"}, at=AT.format(6))
    state = loop_state(Store(home), tmp_path)
    assert state.next is not None and state.next.command, "the rollout of another decision is not this one's"
    register.append("rollout", "ro-1", {"event": "start", "to": "shadow", "licence": decision.id}, at=AT.format(6))
    register.append("rollout", "ro-0", {"event": "rollback", "to": "rolled back"}, at=AT.format(7))
    step = next(step for step in loop_state(Store(home), tmp_path).steps if step.name == "rollout")
    assert (step.state, step.says) == ("done", "ro-1 at shadow")


def test_what_was_decided_without_training_here_stands_in_the_state(tmp_path: Path, home: Path) -> None:
    """A candidate from elsewhere: the steps follow its decision, and every decision, override and rollout is listed; a
    data set that is newer begins a round of its own.
    """
    register, run_id = Register(home), run_of(home, tmp_path)
    first = register.append("decision", run_id, {"word": "BLOCK", "policy": "default@2"}, at=AT.format(2))
    body = {"decision": first.id, "second": "ben"}
    override = register.append("override", first.id, body, at=AT.format(3), by="ada")
    overridden = next(step for step in loop_state(Store(home), tmp_path / "gold").steps if step.name == "rollout")
    assert overridden.command == f"judge rollout start {override.id}"
    start = {"event": "start", "to": "shadow", "licence": override.id}
    register.append("rollout", "ro-1", start, at=AT.format(4))
    register.append("rollout", "ro-1", {"event": "advance", "to": "1%"}, at=AT.format(5))
    state = loop_state(Store(home), tmp_path / "gold")
    found = {step.name: (step.state, step.says) for step in state.steps}
    assert {found[name][0] for name in ("traces", "labels", "pairs", "candidate")} == {"skipped"}
    assert found["evaluation"] == ("done", f"run {run_id}")
    assert found["gate"] == ("done", f"BLOCK ({first.id})")
    assert found["rollout"] == ("done", "ro-1 at 1%")
    assert [(one.kind, one.id, one.says) for one in state.records] == [
        ("rollout", "ro-1", "1%"),
        ("override", override.id, f"of {first.id}, by ada and ben"),
        ("decision", first.id, f"BLOCK of run {run_id} under default@2"),
    ]
    done = call(home, "loop", "status", "--labels", str(tmp_path / "gold"))
    assert all(name in done.stdout for name in (first.id, override.id, "ro-1"))
    assert len(orjson.loads(call(home, "loop", "status", "--json").stdout)["records"]) == 3
    register.append("dataset", "d1", {"rows": 5, "checked": True}, at=AT.format(6))
    assert states(home, tmp_path)["candidate"] == "next"


def calibration(home: Path, **quality: Estimate) -> Calibration:
    """The identity map for the last run's judge and rubric."""
    head = Store(home).run().header
    rubric = pinned(str(head["rubric"]), str(head["rubric_digest"]), released=head.get("rubric_released", True))
    judge = str(JudgeId(**head["judge"]))
    return Calibration(rubric, judge, "g", "temperature", {"slope": (1.0,)}, 0.0, 80, 80, quality=quality)


def brier(low: float, high: float) -> Estimate:
    return Estimate((low + high) / 2, low, high, 0.95, 80, 80, "test")


def test_should_you_tune_knows_nothing_without_data(home: Path) -> None:
    """No data: six times unknown, each with what would settle it, exit 4."""
    done = call(home, "loop", "should-tune", "--json")
    body = orjson.loads(done.stdout)
    assert body["word"] == "UNKNOWN"
    assert [answer["says"] for answer in body["answers"]] == ["unknown"] * 6
    assert all(answer["settle"] for answer in body["answers"])
    assert _run(["loop", "should-tune", "--home", str(home)]) == 4


def test_a_prompt_that_closes_the_gap_says_so_only_on_the_human_scale(tmp_path: Path, home: Path) -> None:
    """Without a calibration unknown; a prompt-only candidate that wins clearly is yes, one that loses no."""
    store, bars = Store(home), worth.Bars()
    lost = run_of(home, tmp_path, n=40, name="lost")
    won = run_of(home, tmp_path, candidate="an answer that is a good deal longer than any other here", n=40, name="won")
    info = store.run(won)
    assert worth.better_prompt(store, info, None, bars).says == "unknown"
    fitted = calibration(home)
    found = worth.better_prompt(store, info, fitted, bars)
    assert (found.says, found.estimate is not None) == ("yes", True)
    assert worth.better_prompt(store, store.run(lost), fitted, bars).says == "no"
    other = Calibration(**{**{name: getattr(fitted, name) for name in fitted.__slots__}, "judge": "x"})
    assert "for another rubric or judge" in worth.better_prompt(store, info, other, bars).evidence


def test_central_is_the_share_of_use_weighted_back() -> None:
    """A sample that took every refund and a tenth of the rest says what the whole would say."""
    cases = [{"category": "refund"}]
    bars = worth.Bars(share=0.3)
    sampled = lambda category, chance: {"category": category, "metadata": {"sampled": {"chance": chance}}}
    use = [sampled("refund", 1.0)] * 100 + [sampled("other", 0.1)] * 90
    found = worth.central(cases, use, bars)
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(0.1)
    assert found.says == "no"
    assert worth.central(cases, [{"category": "refund"}] * 50 + [{"category": "other"}] * 10, bars).says == "yes"
    assert worth.central(cases, [{"category": "refund"}, {"category": "other"}], bars).says == "unknown"
    assert worth.central([], use, bars).says == "unknown"


def test_repeated_counts_distinct_prompts_of_several_origins() -> None:
    """Near-duplicates count once; one origin alone is unknown; too few are no."""
    bars = worth.Bars(cases=5)
    case = lambda n, origin: {
        "prompt": f"how do I do thing number {n} with the long name {n * n} today",
        "origin": {"source": origin},
    }
    many = [case(n, "run a" if n % 2 else "run b") for n in range(8)]
    assert worth.repeated(many, bars).says == "yes"
    assert worth.repeated([case(n, "run a") for n in range(8)], bars).says == "unknown"
    assert worth.repeated([case(1, "run a")] * 9 + [case(1, "run b")], bars).says == "no"
    assert worth.repeated([], bars).says == "unknown"


def test_stable_measurable_and_within_reach(tmp_path: Path, home: Path) -> None:
    """Two people who agree, a judge better than the base rate, a base that wins with help: each by its interval."""
    label = lambda pair, who, said: orjson.dumps({"pair_id": pair, "annotator": who, "outcome": said}).decode()
    agree = [label(f"p{n}", who, "win") for n in range(40) for who in ("a", "b")]
    differ = [label(f"p{n}", who, said) for n in range(40) for who, said in (("a", "win"), ("b", "loss"))]
    bars = worth.Bars()
    assert worth.stable(GoldSet.from_lines(agree), bars).says == "yes"
    assert worth.stable(GoldSet.from_lines(differ), bars).says == "no"
    assert worth.stable(GoldSet.from_lines(agree[:2]), bars).says == "unknown"
    assert worth.stable(GoldSet.from_lines(agree[::2]), bars).says == "unknown"
    run_id = run_of(
        home, tmp_path, candidate="an answer that is a good deal longer than any other here", n=40, name="help"
    )
    store = Store(home)
    assert worth.measurable(calibration(home, brier_gain=brier(0.05, 0.1))).says == "yes"
    assert worth.measurable(calibration(home, brier_gain=brier(-0.01, 0.05))).says == "unknown"
    assert worth.measurable(calibration(home, brier_gain=brier(-0.05, 0.0))).says == "no"
    assert worth.measurable(calibration(home)).says == "unknown"
    info, fitted = store.run(run_id), calibration(home)
    assert worth.has_capability(store, info, [], fitted, bars).says == "yes"
    assert worth.has_capability(store, info, ["elsewhere"], fitted, bars).says == "unknown"
    assert worth.has_capability(store, None, [], fitted, bars).says == "unknown"


def test_what_follows_from_the_answers() -> None:
    """A prompt that does it ends the matter; one no is not now; one unknown is unknown; else tune."""
    answer = lambda says: worth.Answer("q", says, "e")
    word = lambda *says: (found := worth.Worth(tuple(map(answer, says)))).word + str(found.exit_code)
    assert word("no", *["yes"] * 5) == "TUNE0"
    assert word("yes", *["no"] * 5) == "PROMPT1"
    assert word("no", "yes", "no", "unknown", "yes", "yes") == "NOT NOW1"
    assert word("no", "yes", "unknown", "yes", "yes", "yes") == "UNKNOWN4"
    assert word("unknown", *["yes"] * 5) == "UNKNOWN4"


def test_failures_of_production_are_redacted_before_they_are_kept(tmp_path: Path, home: Path) -> None:
    """No address and no key of a trace reaches the cases, the frozen set, its suite or the register."""
    trace = {
        "id": "t1", "prompt": "write to ann@example.com", "answer": {"text": "use sk-live-ABCDEFGHIJKLMNOPQRST"},
        "actions": [{"kind": "edit", "text": "ask bob@example.com"}], "feedback": [{"name": "thumb", "value": -1}],
    }  # fmt: skip
    source = tmp_path / "traces" / "t.jsonl"
    source.parent.mkdir()
    source.write_bytes(orjson.dumps(trace))
    cases = tmp_path / "cases.jsonl"
    done = call(home, "loop", "failures", str(source), "-o", str(cases), "--name", "r", "--frozen-share", "1")
    assert done.exit_code == 0, done.output
    assert "redacted: 2 email, 1 secret" in done.stderr
    written = [path for path in (cases, *home.rglob("*")) if path.is_file()]
    assert len(written) >= 4
    for path in written:
        data = path.read_bytes()
        assert b"example.com" not in data and b"sk-live" not in data, path
    assert b"[email]" in cases.read_bytes()
