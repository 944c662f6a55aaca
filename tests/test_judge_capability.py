"""What a remote judge's server can do: found out once, kept with its date, paid for inside the budget, withdrawn when
the server belies it; and the provider's ids of what was paid for.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from judge import cli, protocol
from judge import journal as journals
from judge.backends import open_backend, probed, ready
from judge.backends.capability import Capability, Memory, known_capabilities
from judge.backends.chat import ChatBackend
from judge.environment import Environment
from judge.errors import InputError
from judge.money import Budget, BudgetSpent
from judge.prices import Price, find_price
from judge.store import Store
from judge.testing import sample_pair, sample_rubric
from judge.types import Reply, Usage

REPO = Path(__file__).resolve().parent.parent

PRICED = "&price_in=1&price_out=1"


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The command line in this process, with a home of its own: exit code, stdout, stderr."""
    monkeypatch.setenv("JUDGE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"p{n}", "prompt": f"Q{n}?", "candidate": "c" * (n + 1), "baseline": "bb!"} for n in range(6)]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def call(*args: str) -> tuple[int, str, str]:
        code = cli._run([str(arg) for arg in args])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return code, shown.out, shown.err

    return call


def spec_of(url: str, more: str = PRICED) -> str:
    return f"openai:m?base_url={url}{more}"


def opened(folder: Path, url: str, more: str = PRICED) -> ChatBackend:
    backend = open_backend(spec_of(url, more), Environment(folder, folder / "cache"))
    assert isinstance(backend, ChatBackend)
    return backend


def prepared(folder: Path, url: str, more: str = PRICED, **options: Any) -> ChatBackend:
    backend = opened(folder, url, more)

    async def work() -> None:
        try:
            await ready(backend, **options)
        finally:
            await backend.close()

    asyncio.run(work())
    return backend


def asked(backend: ChatBackend) -> list[Reply]:
    async def work() -> list[Reply]:
        try:
            return await backend.ask(protocol.plan(sample_pair(), sample_rubric(), backend.id))
        finally:
            await backend.close()

    return asyncio.run(work())


def files(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("**/capabilities/*.json"))]


@pytest.mark.parametrize(
    ("script", "mode", "calls"), [("ok", "logprobs", 1), ("no-logprobs,ok", "schema", 2), ("no-schema", "text", 2)]
)
def test_it_is_found_out_once_and_kept(server: Any, tmp_path: Path, script: str, mode: str, calls: int) -> None:
    """A second process asks nothing and is the same judge; what finding out took stands with the date."""
    name = f"once-{mode}"
    first = prepared(tmp_path, server.url(name, script))
    again = prepared(tmp_path, server.url(name, script))
    assert server.book(name)["requests"] == calls
    assert (first.mode, again.mode, first.id) == (mode, mode, again.id)
    (kept,) = files(tmp_path)
    (found,) = kept["history"]
    assert (kept["model"], kept["endpoint"], found["mode"]) == ("openai/m", server.url(name, script), mode)
    assert (found["took"]["attempts"], len(found["took"]["response_ids"]), len(found["found"])) == (calls, calls, 10)
    assert found["took"]["cost"] > 0


def test_another_place_revision_or_temperature_is_found_out_for_itself(server: Any, tmp_path: Path) -> None:
    """A finding is about a model at a place, its revision and its temperature; concurrency and prices are no part."""
    url = server.url("apart")
    prepared(tmp_path, url)
    prepared(tmp_path, url, "&concurrency=3")
    assert server.book("apart")["requests"] == 1
    for number, more in enumerate(("&revision=r2", "&temperature=1"), 2):
        prepared(tmp_path, url, more)
        assert server.book("apart")["requests"] == number
    prepared(tmp_path, server.url("elsewhere"))
    assert (len(files(tmp_path)), server.book("elsewhere")["requests"]) == (4, 1)


def test_probe_1_finds_out_anew_and_keeps_the_history(server: Any, tmp_path: Path) -> None:
    """The user can ask for a new look; the older finding stays readable before it."""
    url = server.url("anew", "ok,no-schema")
    assert prepared(tmp_path, url).mode == "logprobs"
    assert prepared(tmp_path, url, f"{PRICED}&probe=1").mode == "text"
    assert prepared(tmp_path, url).mode == "text"
    (kept,) = files(tmp_path)
    assert [entry["mode"] for entry in kept["history"]] == ["logprobs", "text"]


def test_what_a_server_belies_is_withdrawn_and_never_made_up(server: Any, tmp_path: Path) -> None:
    """Label probabilities that are gone: the text is read and flagged, the finding withdrawn, the next start asks."""
    url = server.url("belied", "ok,no-logprobs")
    prepared(tmp_path, url)
    replies = asked(prepared(tmp_path, url))
    assert [(reply.probs, reply.flags) for reply in replies] == [(None, ("no_logprobs",))] * 2
    (kept,) = files(tmp_path)
    assert [bool(entry.get("refuted")) for entry in kept["history"]] == [False, True], "withdrawn once"
    assert "gave none" in kept["history"][-1]["why"]
    assert next(told for _, _, told in known_capabilities([tmp_path / "capabilities"])).count("withdrawn") == 1
    before = server.book("belied")["requests"]
    prepared(tmp_path, url)
    assert server.book("belied")["requests"] > before


def test_a_mode_that_is_refused_now_is_withdrawn_and_says_so(server: Any, tmp_path: Path) -> None:
    """Ten refusals end the run; the message says that the finding is gone, so that a new run finds out anew."""
    url = server.url("refusing", "ok,no-logprobs-400")
    backend = prepared(tmp_path, url)

    async def work() -> None:
        ask = protocol.plan(sample_pair(), sample_rubric(), backend.id)[0]
        try:
            for _ in range(10):
                await backend.ask([ask])
        finally:
            await backend.close()

    with pytest.raises(Exception, match="is withdrawn, a new run finds out anew"):
        asyncio.run(work())
    assert "refuses logprobs" in files(tmp_path)[0]["history"][-1]["why"]


def test_a_refused_seed_is_remembered(server: Any, tmp_path: Path) -> None:
    """A parameter that is left out since a run's first refusal is not sent by the next process either."""
    url = server.url("limit", "ok,no-limit-400,ok")
    asked(prepared(tmp_path, url))
    again = prepared(tmp_path, url)
    asked(again)
    bodies = [entry["body"] for entry in server.book("limit")["log"]]
    assert "max_completion_tokens" in bodies[-1] and "max_tokens" not in bodies[-1]
    assert sum("max_tokens" in body for body in bodies) <= 3


@pytest.mark.parametrize("text", ["", "[]", '{"history": 1}', '{"history": [{"mode": "guess"}]}', "\0"])
def test_a_finding_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    """A damaged file costs a call, never a wrong mode; what follows it is kept again."""
    memory = Memory([tmp_path], {"model": "m"}, today=lambda: "2026-01-02")
    (tmp_path / memory.name).write_text(text)
    assert memory.recall() is None
    assert memory.keep(Capability("schema", found=memory.today()), Reply(usage=Usage(cost=0.0)))
    assert memory.recall() == Capability("schema", found="2026-01-02")


def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path: Path, server: Any) -> None:
    """Where nothing can be kept the judge works all the same, and the next start asks again."""
    (tmp_path / "capabilities").write_text("a file in the way")
    for number in (1, 2):
        assert prepared(tmp_path, server.url("blocked")).mode == "logprobs"
        assert server.book("blocked")["requests"] == number


def test_the_probe_is_reserved_before_it_is_sent(server: Any, tmp_path: Path) -> None:
    """A budget that does not allow the call sends none; one that allows the first and not the second stops there."""
    with pytest.raises(BudgetSpent, match="does not allow the call that finds out how m can answer"):
        prepared(tmp_path, server.url("poor"), budget=Budget(1e-6))
    assert server.book("poor")["requests"] == 0
    bound = opened(tmp_path, server.url("poor")).probe_bound()
    assert bound is not None
    with pytest.raises(BudgetSpent, match="are spent on it"):
        prepared(tmp_path, server.url("half", "no-logprobs"), budget=Budget(bound))
    assert server.book("half")["requests"] == 1
    budget = Budget(1.0)
    backend = prepared(tmp_path, server.url("rich"), budget=budget)
    took = asyncio.run(probed(backend))
    assert (budget.reserved, budget.spent, took.attempts) == (0.0, took.usage.cost, 1)
    assert asyncio.run(probed(backend)).attempts == 0, "booked once"


def test_a_cached_run_again_makes_no_call_and_books_no_probe(server: Any, tmp_path: Path, judge: Any) -> None:
    """mode=auto: the first run books its probe as a cost of its own, the second asks nothing at all."""
    spec = spec_of(server.url("again"))
    code, out, _ = judge("run", "e.jsonl", "-j", spec, "--json")
    assert (code, server.book("again")["requests"]) == (0, 13)
    first, info = json.loads(out), Store(tmp_path / "home").run()
    assert info.probes == 1 and info.probe_cost
    assert first["cost"] == pytest.approx(first["overall"]["cost"] + info.probe_cost)
    code, out, _ = judge("run", "e.jsonl", "-j", spec, "--json")
    assert (code, server.book("again")["requests"]) == (0, 13)
    again = json.loads(out)
    assert (again["cached"], again["cost"], Store(tmp_path / "home").run().probes) == (12, 0.0, 0)
    assert judge("doctor")[0] == 0
    assert judge("recover")[0] == 0
    assert Store(tmp_path / "home").run(info.run_id).probe_cost == info.probe_cost


def test_a_run_is_refused_before_its_probe(server: Any, tmp_path: Path, judge: Any) -> None:
    """Under --max-cost a probe that cannot be paid for, or whose price is unknown, is not sent and no run begins."""
    code, _, err = judge("run", "e.jsonl", "-j", spec_of(server.url("limit0")), "--max-cost", "0.000001")
    assert (code, "does not allow the call that finds out" in err) == (3, True)
    code, _, err = judge("run", "e.jsonl", "-j", spec_of(server.url("limit0"), ""), "--max-cost", "1")
    assert (code, "its price is unknown" in err) == (2, True)
    assert server.book("limit0")["requests"] == 0
    assert not list((tmp_path / "home").glob("runs/*"))


def test_the_probe_counts_against_the_limit_of_the_run(server: Any, tmp_path: Path, judge: Any) -> None:
    """What finding out took is spent before the first ask: a limit of the asks alone does not let the last one go."""
    url = server.url("counts")
    assert judge("run", "e.jsonl", "-j", spec_of(url), "--max-cost", "1")[0] == 0
    info = Store(tmp_path / "home").run()
    path = Store(tmp_path / "home").journal_path(info.run_id)
    records = list(journals.records(path))
    assert [record["t"] for record in records[:2]] == ["run", "probe"]
    assert len(records[1]["reply"]["response_ids"]) == 1


def test_a_dry_run_says_what_is_known_and_what_is_assumed(server: Any, judge: Any) -> None:
    """Before anything is known the mode is assumed, and says so; afterwards it is the stored one with its date."""
    spec = spec_of(server.url("dry", "no-schema"))
    code, out, _ = judge("run", "e.jsonl", "-j", spec, "--dry-run")
    assert (code, "logprobs is assumed: nothing is known of this server" in out) == (0, True)
    told = json.loads(judge("run", "e.jsonl", "-j", spec, "--dry-run", "--json")[1])
    assert (told["mode"], told["mode_assumed"], told["mode_found"]) == ("logprobs", True, None)
    assert told["probe_most"] > 0
    assert server.book("dry")["requests"] == 0
    assert judge("run", "e.jsonl", "-j", spec)[0] == 0
    calls = server.book("dry")["requests"]
    out = judge("run", "e.jsonl", "-j", spec, "--dry-run")[1]
    assert "text, as found out on 20" in out and "[t0-n32-text]" in out and "12 cached" in out
    assert server.book("dry")["requests"] == calls
    panel = judge("run", "e.jsonl", "-j", spec, "-j", spec_of(server.url("dry2")), "--dry-run")[1]
    assert "text, as found out on 20" in panel and "logprobs is assumed" in panel


def test_a_dry_run_of_a_batch_quotes_the_probe_at_the_full_price(server: Any, judge: Any) -> None:
    """The calls that find out the mode are ordinary ones, whatever the batch costs; canary pairs are counted."""
    spec = spec_of(server.url("batchdry")) + "&price_batch=0.5"
    plain, batch = (
        json.loads(judge("run", "e.jsonl", "-j", spec, "--dry-run", "--json", *more)[1]) for more in ((), ("--batch",))
    )
    assert batch["high"] == pytest.approx(plain["high"] / 2)
    assert batch["probe_most"] == plain["probe_most"] > 0
    assert server.book("batchdry")["requests"] == 0
    out = judge("run", "e.jsonl", "-j", spec, "-j", spec_of(server.url("batchdry2")), "--canaries", "3", "--dry-run")[1]
    assert "and 5 canary pairs" in out


def test_a_resume_keeps_mode_and_parameters_without_a_call(server: Any, tmp_path: Path) -> None:
    """The mode is that of the run's header; what is kept of the server is used where it says the same."""
    url = server.url("resumed", "no-limit-400,ok")
    begun = prepared(tmp_path, url)
    assert server.book("resumed")["requests"] == 2
    asked(prepared(tmp_path, url, PRICED, recorded=begun.id))
    log = server.book("resumed")["log"]
    assert len(log) == 4 and "max_completion_tokens" in log[-1]["body"]
    other = prepared(tmp_path, url, f"{PRICED}&max_tokens=9", recorded=begun.id)
    assert (other.id != begun.id, server.book("resumed")["requests"]) == (True, 4), "another judge is not asked either"


def test_ids_of_responses_reach_journal_and_database(server: Any, tmp_path: Path, judge: Any) -> None:
    """Every paid reply keeps the provider's id, a repaired one both; a reused one keeps the id of the first payment."""
    assert judge("run", "e.jsonl", "-j", spec_of(server.url("ids", "prose,ok"), "&mode=text&concurrency=1"))[0] == 0
    store = Store(tmp_path / "home")
    path = store.journal_path(store.run().run_id)
    kept = [record["reply"]["response_ids"] for record in journals.records(path) if record["t"] == "reply"]
    assert len(set(map(tuple, kept))) == 12
    assert [len(ids) for ids in kept] == [2] + [1] * 11
    assert all(name.startswith("chatcmpl-") for ids in kept for name in ids)
    reply = journals.decode_reply({"text": "K", "usage": {"prompt_tokens": 1}})
    assert reply.response_ids == (), "journals of earlier versions have none"
    assert store.receipts(store.run().run_id)["response_ids"].to_list() == [" ".join(ids) for ids in kept]


def test_the_parts_of_a_cost_are_the_whole_run(server: Any, tmp_path: Path, judge: Any) -> None:
    """Pairs, canary pairs and finding out the mode are rows of their own and add up to what every call took."""
    rows = [{"id": f"p{n}", "prompt": f"Q{n}?", "candidate": "c" * (n % 5 + 1), "baseline": "bb"} for n in range(40)]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    _, text, _ = judge("run", "e.jsonl", "-j", spec_of(server.url("parts")))
    report = json.loads(judge("report", "--json")[1])
    parts = {name: float(value) for name, value in re.findall(r"^([a-z ]+?) {2,}\$([0-9.]+)", text, re.MULTILINE)}
    assert list(parts) == ["all pairs", "canary pairs", "finding out the mode", "the whole run"]
    assert parts.pop("the whole run") == pytest.approx(sum(parts.values()), rel=0.01)
    store = Store(tmp_path / "home")
    journal = list(journals.records(store.journal_path(store.run().run_id)))
    paid = [record["reply"]["usage"]["cost"] for record in journal if record["t"] in ("reply", "probe")
            and not record.get("reused")]  # fmt: skip
    assert len(paid) == server.book("parts")["requests"], "every call that the server answered"
    assert report["cost"] == pytest.approx(sum(paid))


def test_reports_show_what_each_category_and_verdict_cost(server: Any, tmp_path: Path, judge: Any) -> None:
    """Terminal, Markdown and HTML: cost of the run, of each category and of a verdict, the probe beside them; a bill
    can be held against the receipts; a free judge has no such section.
    """
    rows = [
        {"id": f"p{n}", "prompt": f"Q{n}?", "category": "ab"[n % 2], "candidate": "c", "baseline": "bb"}
        for n in range(4)
    ]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    code, text, _ = judge("run", "e.jsonl", "-j", spec_of(server.url("costs")))
    report = json.loads(judge("report", "--json")[1])
    each = report["overall"]["cost"] / 8
    assert report["overall"]["cost_per_verdict"] == pytest.approx(each)
    assert sum(part["cost"] for part in report["categories"]) == pytest.approx(report["overall"]["cost"])
    shown = [line.split() for line in text.splitlines() if "$" in line]
    rows = {" ".join(row[: -1 - (len(row) > 2 and "$" in row[-2])]): row for row in shown}
    assert list(rows) == ["all pairs", "a", "b", "finding out the mode", "the whole run"]
    whole, verdict = rows["all pairs"][-2:]
    assert float(whole.strip("$")) == pytest.approx(report["overall"]["cost"], rel=0.01)
    assert float(verdict.strip("$")) == pytest.approx(each, rel=0.01)
    probe = report["header"]["calls"]["probe_cost"]
    assert float(rows["finding out the mode"][-1].strip("$")) == pytest.approx(probe, rel=0.01)
    assert report["cost"] == pytest.approx(report["overall"]["cost"] + probe)
    assert float(rows["the whole run"][-1].strip("$")) == pytest.approx(report["cost"], rel=0.01)
    assert f"| all pairs | {whole} | {verdict} |" in judge("report", "--md")[1]
    code, _, _ = judge("report", "--html", "r.html", "--receipts", "bill.jsonl")
    assert code == 0 and whole in (tmp_path / "r.html").read_text(encoding="utf-8")
    bill = [json.loads(line) for line in (tmp_path / "bill.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(bill) == 8 == len({row["response_ids"] for row in bill})
    assert sum(row["cost"] for row in bill) == pytest.approx(report["overall"]["cost"])
    again = judge("run", "e.jsonl", "-j", spec_of(server.url("costs")))[1]
    assert "a verdict" not in again, "everything was stored already"
    assert "a verdict" not in judge("run", "e.jsonl", "-j", "scripted:longer")[1]


def test_prices_of_a_place_of_ones_own(tmp_path: Path) -> None:
    """The user's file can price a model at a URL, a host and port or a host, the most exact first; never a list price
    of another server.
    """
    table = {
        "openai/m@http://Gpu1:8000/v1/": 1, "openai/m@gpu1:8000": 2, "openai/m@gpu1": 3, "http://gpu2:8000/v1": 4,
        "gpu2:8000": 5, "gpu2": 6, "openai/gpt-4o": 7,
    }  # fmt: skip
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"models": {name: {"input": value, "output": 0} for name, value in table.items()}}))

    def price(model: str, url: str = "") -> float | None:
        found = find_price(model, override=path, url=url)
        return found.input if found is not None else None

    assert price("openai/m", "http://gpu1:8000/v1") == 1
    assert price("openai/m", "http://GPU1:8000/v2") == 2
    assert price("openai/m", "https://gpu1/v1") == 3
    assert price("openai/n", "http://gpu1:8000/v1") is None
    assert [price("openai/n", f"http://gpu2{rest}") for rest in (":8000/v1", ":8000/v2", ":9/v1")] == [4, 5, 6]
    assert (price("openai/gpt-4o"), price("openai/gpt-4o", "http://gpu3/v1")) == (7, None)
    backend = open_backend("openai:m?base_url=http://gpu1:8000/v1", Environment(tmp_path, tmp_path, prices=path))
    assert isinstance(backend, ChatBackend) and backend.price == Price(1.0, 0.0)
    bad = tmp_path / "bad.json"
    bad.write_text('{"models": {"gpu1": {"input": -1, "output": 0}}}')
    with pytest.raises(InputError, match="gpu1: input is -1"):
        open_backend("openai:m?base_url=http://gpu1:8000/v1", Environment(tmp_path, tmp_path, prices=bad))
