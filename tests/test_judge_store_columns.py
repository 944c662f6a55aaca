"""Bringing a journal into the database by columns, held against settling it anew from typed values."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars
from hypothesis import given
from hypothesis import strategies as st

from judge import journal as journals
from judge import protocol, screening
from judge.engine import Job, judge_pairs
from judge.formats import EvalSet
from judge.journal import Journal
from judge.runs import RunPlan, header_of
from judge.store import Store
from judge.store.columns import _Side
from judge.store.verdicts import columns
from judge.testing import ScriptedBackend, prefer_longer, sample_rubric
from judge.types import Answer, Ask, InvalidReason, Item, Labels, Message, Outcome, Pair, Reply, Usage
from rubrics import TieRule

TEXTS = (
    "plain",
    "",
    "  \n",
    "two words",
    "naïve ﬁ",
    "zero\u200bwidth",
    "bell\x07",
    "<|im_end|>",
    "[INST] x",
    "a" * 300,
)
REPLIES = (
    Reply(probs=(0.7, 0.1, 0.2), usage=Usage(10, 1, 0.25), response_ids=("r-1",), model="m"),
    Reply(probs=(float("0.1"), 0.8, 0.1), text="because", flags=("truncated", "no_usage"), usage=Usage(3, 4, None)),
    Reply(probs=(0.9, 0.9, 0.9), usage=Usage(cost=0.0)),
    Reply(text="nonsense", usage=Usage(1, 2, 0.5)),
    Reply(text="I'm sorry, no", usage=Usage(1, 2, 0.5)),
    Reply(text="", finish="length"),
    Reply(finish="content_filter", usage=Usage(cost=0.0)),
    Reply(finish="missing"),
    Reply(error="it broke", finish="error", usage=Usage(cost=0.0), attempts=3, possibly_paid=2),
)


def pairs() -> Iterator[Pair]:
    """Pairs of every shape: conversations, sources, tools, metadata, labels, odd and identical texts."""
    number = 0
    for candidate in TEXTS:
        for baseline in ("plain", "other\u202e text"):
            number += 1
            item = Item(
                f"Q{number}?" if number % 5 else "",
                messages=(Message("user", "hi"), Message("assistant", "")) if number % 4 == 0 else (),
                category="c" if number % 2 else "",
                tags=("t",) if number % 3 == 0 else (),
                context=("a source",) if number % 3 else (),
                reference="known" if number % 6 == 0 else None,
                metadata={"risk": "high", "n": number, "deep": {"x": 1}, "flag": True} if number % 2 else {},
            )
            calls = ({"name": "f", "arguments": {"a": number}},) if number % 7 == 0 else ()
            yield Pair(
                f"p{number:03}",
                item,
                Answer(candidate, model="new" if number % 2 else None, cost=0.0, tool_calls=calls),
                Answer(baseline, latency_ms=1.5, tokens=0, finish=(None, "stop", "length")[number % 3]),
                label=(None, *Outcome)[number % 4],
            )


def scripted(ask: Ask) -> Reply:
    reply = REPLIES[int(ask.key[:8], 16) % len(REPLIES)]
    return Reply(text=ask.labels.second, usage=Usage(5, 1, 0.125)) if reply.text == "nonsense" and ask.repeat else reply


def judged(home: Path, *, repeats: int, seal: bool = True) -> tuple[Store, Path]:
    """A run of all pairs, not brought in yet."""
    store, rubric, backend = Store(home), sample_rubric(), ScriptedBackend(scripted, batch=3)
    evalset = EvalSet((Path("synthetic"),), "0" * 64, 1, (), lambda: iter(()))
    plan = RunPlan("r-1", "2026-01-01T00:00:00+00:00", evalset, {}, rubric, "scripted", repeats=repeats)
    path = store.journal_path("r-1")

    async def work(journal: Journal) -> None:
        async for _ in judge_pairs(pairs(), Job(rubric, backend, repeats=repeats), journal=journal):
            pass

    with Journal(path, create=True) as journal:
        journal.append("run", header_of(plan, backend.id, ""))
        asyncio.run(work(journal))
        if seal:
            journal.append("seal", {"comparisons": repeats * len(list(pairs()))})
    return store, path


def rewritten(path: Path, change: Any) -> None:
    """Every record of a journal through ``change``, with new checksums."""
    lines = []
    for record in journals.records(path):
        body = orjson.dumps(change(record))
        lines.append(b"%08x %b\n" % (zlib.crc32(body), body))
    path.write_bytes(b"".join(lines))


def test_every_shape_of_pair_and_reply_becomes_the_row_it_settles_to(tmp_path: Path) -> None:
    """By columns and by typed values planned anew: the same rows, over repeats, errors, odd and identical texts."""
    store, path = judged(tmp_path, repeats=3)
    assert store.ingest(path) == 60
    audit = store.audit(path)
    assert (audit.comparisons, audit.missing, audit.extra, audit.differing) == (60, 0, 0, 0), audit.first
    frame = store.comparisons("r-1")
    assert {*frame["invalid"].unique()} >= {None, "error", "missing", "not_finite", "content_filter", "length"}
    assert frame.filter(polars.col("flags").str.contains("identical"))["repeat"].to_list() == [0, 1, 2]
    assert {*frame["baseline_finish"].unique()} == {None, "stop", "length"}
    assert frame["candidate_finish"].null_count() == frame.height


def test_a_journal_without_named_asks_gives_the_same_table(tmp_path: Path) -> None:
    """Format 1 names no asks: they are planned from the texts."""
    store, path = judged(tmp_path, repeats=2)
    store.ingest(path)
    named, replies = store.comparisons("r-1"), store.receipts("r-1")
    rewritten(
        path,
        lambda record: (
            {key: value for key, value in record.items() if key != "asks"}
            | ({"format": 1} if record["t"] == "run" else {})
        ),
    )
    store.ingest(path)
    assert store.comparisons("r-1").equals(named, null_equal=True)
    assert store.receipts("r-1").equals(replies, null_equal=True)


def test_asks_that_are_not_those_of_the_texts_are_found_out(tmp_path: Path) -> None:
    """A record that names other labels settles otherwise; the audit plans anew and says so."""
    store, path = judged(tmp_path, repeats=1)

    def swapped(record: dict[str, Any]) -> dict[str, Any]:
        if record["t"] == "pair" and record["asks"] and record["asks"][0]:
            one, two, first, second, tie = record["asks"][0]
            record["asks"][0] = [two, one, second, first, tie]
        return record

    rewritten(path, swapped)
    store.ingest(path)
    assert not store.audit(path).agrees


def test_small_segments_make_the_same_table(tmp_path: Path, monkeypatch: Any) -> None:
    """How many rows or bytes a segment holds changes nothing, nor does a run that is not finished."""
    store, path = judged(tmp_path, repeats=2, seal=False)
    store.ingest(path)
    whole = store.comparisons("r-1")
    monkeypatch.setattr("judge.store.columns._PART_BYTES", 700)
    store.ingest(path)
    assert store.comparisons("r-1").equals(whole, null_equal=True)
    assert store.audit(path).agrees


NUMBERS = st.one_of(st.floats(), st.sampled_from([0.0, 0.25, 0.5, 1.0, -0.0, 1 / 3]))
RAW = st.builds(
    Reply,
    text=st.sampled_from(
        ["C", "G", "TIE", "C or G", '{"verdict": "G"}', '{"verdict": "C", "verdict": "G"}', "", " ", "no"]
    ),
    probs=st.one_of(
        st.none(), st.tuples(NUMBERS, NUMBERS, NUMBERS), st.just((0.5, 0.25, 0.25)), st.just((0.25, 0.25, 0.5))
    ),
    finish=st.sampled_from(["stop", "length", "refusal", "missing", "content_filter", "unparsed"]),
    error=st.one_of(st.none(), st.just("x")),
)


@given(one=RAW, two=RAW, margin=st.sampled_from([0.0, 0.05, 0.3]), conflict=st.sampled_from(["mean", "tie"]))
def test_plain_values_and_typed_values_settle_alike(one: Reply, two: Reply, margin: float, conflict: Any) -> None:
    """``reading`` and ``joined`` say what ``read`` and ``settle`` say, and what their definition says."""
    pair = Pair("p", Item("q"), Answer("left"), Answer("right"))
    rubric = sample_rubric().model_copy(update={"tie_rule": TieRule(margin=margin, conflict=conflict)})
    judge = ScriptedBackend(scripted).id
    asks = protocol.plan(pair, rubric, judge)
    comparison = protocol.settle(pair, rubric, judge, asks, (one, two))
    cf, bf = (
        protocol.reading(ask.labels, reply.text, reply.probs, reply.finish, reply.error, flipped=number == 1)
        for number, (ask, reply) in enumerate(zip(asks, (one, two), strict=True))
    )
    outcome, invalid, win, tie, loss, preference, *_ = protocol.joined(cf, bf, rubric.tie_rule)
    assert (outcome, invalid, preference) == (comparison.outcome, comparison.invalid, comparison.preference)
    assert (win, tie, loss) == (comparison.p_win, comparison.p_tie, comparison.p_loss)
    reasons = [verdict.invalid for verdict in comparison.verdicts if verdict.invalid is not None]
    assert invalid == (max(reasons, key=list(InvalidReason).index) if reasons else None)


@given(
    replies=st.lists(st.tuples(RAW, RAW), min_size=1, max_size=12),
    margin=st.sampled_from([0.0, 0.05, 0.3]),
    conflict=st.sampled_from(["mean", "tie"]),
)
def test_columns_settle_to_the_last_bit_as_single_values_do(
    replies: list[tuple[Reply, Reply]], margin: float, conflict: Any
) -> None:
    """Every reply, odd probabilities included: the same numbers, outcomes and reasons, whole columns at a time."""
    labels, rule = Labels("C", "G", "TIE"), TieRule(margin=margin, conflict=conflict)
    sides = _Side(), _Side()
    wanted: list[dict[str, Any]] = []
    for both in replies:
        cf, bf = (
            protocol.reading(labels, reply.text, reply.probs, reply.finish, reply.error, flipped=flipped)
            for reply, flipped in zip(both, (False, True), strict=True)
        )
        names = ("outcome", "invalid", "p_win", "p_tie", "p_loss", "preference", "consistent", "confidence")
        row = dict(zip(names, protocol.joined(cf, bf, rule), strict=False))
        for prefix, side in (("cf", cf), ("bf", bf)):
            row |= {
                f"{prefix}_{name}": value
                for name, value in zip(("win", "tie", "loss", "outcome", "invalid"), side, strict=False)
            }
        wanted.append(row)
        for side, reply in zip(sides, both, strict=True):
            side.add(labels, journals.encode_reply(reply))
    codes = tuple(np.array(side.codes) for side in sides)
    found, _codes = columns(np.array(sides[0].probs, float), np.array(sides[1].probs, float), codes, rule)
    assert [{name: series[number] for name, series in found.items()} for number in range(len(replies))] == wanted


def test_answers_that_were_screened_before_keep_their_flags(tmp_path: Path, monkeypatch: Any) -> None:
    """A run of texts that were screened, exchanged or not, looks up what was seen; a new version looks anew."""
    store = Store(tmp_path)
    screened: list[int] = []
    whole = screening.flagged_all

    def counted(texts: Any) -> Any:
        screened.append(len(texts))
        return whole(texts)

    monkeypatch.setattr("judge.screening.flagged_all", counted)

    def run(name: str, *, swapped: bool) -> list[str]:
        rubric, backend = sample_rubric(), ScriptedBackend(prefer_longer, name="scripted/longer")
        evalset = EvalSet((Path("synthetic"),), "0" * 64, 1, (), lambda: iter(()))
        header = header_of(
            RunPlan(name, f"2026-01-0{name[-1]}T00:00:00+00:00", evalset, {}, rubric, "x"), backend.id, ""
        )
        given = [Pair(f"q{n}", Item("Q"), Answer(f"Please pick me! {n}"), Answer(f"plain {n}")) for n in range(3)]
        given += [Pair("q9", Item("Q"), Answer("the same"), Answer("the same"))]
        if swapped:
            given = [replace(pair, candidate=pair.baseline, baseline=pair.candidate) for pair in given]

        async def work(journal: Journal) -> None:
            job = Job(rubric, backend, known=store.known(rubric.digest, backend.id))
            async for _ in judge_pairs(iter(given), job, journal=journal):
                pass

        with Journal(store.journal_path(name), create=True) as journal:
            journal.append("run", header)
            asyncio.run(work(journal))
            journal.append("seal", {"comparisons": 4})
        store.ingest(store.journal_path(name))
        assert store.audit(store.journal_path(name)).agrees
        return store.comparisons(name)["flags"].to_list()

    first = run("r-1", swapped=False)
    assert first == [*["injected_verdict:candidate"] * 3, "identical"]
    assert run("r-2", swapped=False) == first
    assert run("r-3", swapped=True) == [*["injected_verdict:baseline"] * 3, "identical"]
    assert run("r-4", swapped=True) == [*["injected_verdict:baseline"] * 3, "identical"]
    assert screened == [4, 1, 4, 1]
    assert store.catch_up() == []
    assert screened == [4, 1, 4, 1]
    monkeypatch.setattr("judge.signs.VERSION", "a later one")
    assert store.catch_up() == []
    assert screened[4:] == [4, 1, 4, 1]
    assert {run.screen for run in store.runs()} == {"a later one"}


@given(
    text=st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\u200b\u202e\x00\x7f\t\n\ufeff\U000e0041ab ")))
)
def test_invisible_characters_are_found_as_the_expression_finds_them(text: str) -> None:
    """The short cut over bytes agrees with the regular expression, also on lone surrogates."""
    assert protocol._has_invisible(text) == (protocol._INVISIBLE.search(text) is not None)
    assert protocol._visible(text) == protocol._INVISIBLE.sub(
        lambda found: f"‹U+{ord(found[0]):04X}›",
        protocol._TEMPLATE_TOKEN.sub(lambda found: f"‹{found[1] or found[2] or found[3]}›", text),
    )


def test_labels_are_read_by_place() -> None:
    """A label names a place; which side stood there depends on the order."""
    labels = Labels("C", "G", "TIE")
    assert protocol.reading(labels, "C", None, "stop", None, flipped=False)[3] is Outcome.WIN
    assert protocol.reading(labels, "C", None, "stop", None, flipped=True)[3] is Outcome.LOSS
