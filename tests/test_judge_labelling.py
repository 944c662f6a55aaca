"""Labelling as values and its files: queue, sides, undo, draws and their chances, the append-only log."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration import GoldSet, Judged, JudgedRun
from calibration.provenance import Joined, join
from judge import labelling
from judge.cli.keyboard import columns, wrap
from judge.errors import InputError
from judge.labelling import Choice, Framed, Place, Request, Session, Subject
from judge.labels import (
    DrawRecord,
    LabelLog,
    draw_path,
    extend_draw,
    read_draw,
    read_rows,
    refuse_other,
    write_draw,
)
from judge.types import Answer, Item, Message, Outcome, Pair
from rubrics import parse

SUBJECT = Subject("cand", "base", "helpfulness@1", "d" * 64, "e" * 64)


def pair(name: str = "p1", **item: object) -> Pair:
    return Pair(name, Item(**{"prompt": f"Q {name}", **item}), Answer("the one", "cand"), Answer("the other", "base"))


def frame(n: int) -> list[Framed]:
    """Pairs in two strata; every fifth without a verdict, every seventh contradicted by the swap."""
    return [
        Framed(
            f"p{k:03}", "ab"[k % 2], None if k % 5 == 0 else 0.5 + (k % 50) / 100, None if k % 5 == 0 else k % 7 != 0
        )
        for k in range(n)
    ]


def row_of(session: Session, change: labelling.Change, place: Place | None = None) -> dict[str, object]:
    item = labelling.gold_item(
        pair(change.pair_id), place or Place(change.pair_id, "random", 0.5), replace(SUBJECT, evalset="e")
    )
    return labelling.record(item, change, annotator=session.annotator, seed=session.seed, at="2026-01-01", seconds=1.25)


def press(session: Session, key: str) -> tuple[Session, list[dict[str, object]]]:
    """One key as the command line understands it, and the rows it writes."""
    choices = {"1": Choice.FIRST, "2": Choice.SECOND, "3": Choice.TIE, "4": Choice.BOTH_BAD}
    if key in choices and session.current is not None:
        later, change = session.cast(choices[key])
    elif key == "s" and session.current is not None:
        later, change = session.skip()
    elif key == "u" and session.trail:
        later, change = session.undo()
    elif key == "n":
        return session.noted("because"), []
    elif key == "c":
        return session.closer(), []
    else:
        return session, []
    return later, [row_of(later, change)]


QUEUE = tuple(f"p{k}" for k in range(6))


@given(st.lists(st.sampled_from("1234suuucn"), max_size=40), st.integers(0, 40))
def test_any_keys_leave_the_labels_of_the_last_votes(keys: list[str], cut: int) -> None:
    """Votes, skips and undos in any order, with a break anywhere, leave in the log the last vote on each pair."""
    session, rows = labelling.begin(QUEUE, [], annotator="ada", seed=3), []
    done: list[tuple[str, str]] = []
    for number, key in enumerate(keys):
        if number == cut:
            session = labelling.begin(QUEUE, rows, annotator="ada", seed=3)
            done = [(name, choice) for name, choice in done if choice != "s"]
        if key == "u" and done:
            assert session.trail[-1] == done.pop()[0]
        elif key in "1234s" and session.current is not None:
            done.append((session.current, key))
        before = len(rows)
        session, new = press(session, key)
        rows += new
        assert rows[:before] == rows[: len(rows) - len(new)]
    wanted = {}
    for name, choice in done:
        first = labelling.candidate_first(3, name, "ada")
        if choice in "12":
            wanted[name] = Outcome.WIN if (choice == "1") == first else Outcome.LOSS
        elif choice in "34":
            wanted[name] = Outcome.TIE
    gold = GoldSet.from_lines([json.dumps(row) for row in rows])
    assert {item.pair_id: item.labels[0].outcome for item in gold.items} == wanted
    assert {name: mark.outcome for name, mark in session.marks.items() if mark.outcome} == wanted
    assert session.voted == len(wanted)


def test_undo_shows_the_pair_again_with_its_note() -> None:
    """Undo returns to the last pair, keeps what was noted about it, and walks back into an earlier sitting."""
    session = labelling.begin(QUEUE, [], annotator="ada", seed=0)
    first = session.current
    session, rows = press(session.noted("too long").closer(), "1")
    session = labelling.begin(QUEUE, rows, annotator="ada", seed=0)
    assert session.current != first
    session, change = session.undo()
    assert (session.current, session.draft.note, session.draft.closeness) == (first, "too long", 0.0)
    assert (change.mark, change.revises) == (None, True)
    with pytest.raises(InputError, match="nothing to undo"):
        session.undo()


def test_skipped_pairs_come_back_last_in_the_next_sitting() -> None:
    """A skip leaves no label; the pair waits behind all pairs that were not seen yet."""
    session = labelling.begin(QUEUE, [], annotator="ada", seed=0)
    skipped = session.current
    session, rows = press(session, "s")
    again = labelling.begin(QUEUE, rows, annotator="ada", seed=0)
    assert (again.todo[-1], again.skipped, again.voted, again.total) == (skipped, 1, 0, 6)
    assert rows[0]["outcome"] is None and rows[0]["skipped"] is True
    assert len(GoldSet.from_lines([json.dumps(rows[0])])) == 0


def test_sides_are_a_fair_coin_for_every_annotator() -> None:
    """Over many pairs each annotator sees the candidate first about half the time, independently of the others."""
    names = [f"q{k}" for k in range(4000)]
    ada, ben = ([labelling.candidate_first(7, name, who) for name in names] for who in ("ada", "ben"))
    for sides in (ada, ben, [a == b for a, b in zip(ada, ben, strict=True)]):
        assert abs(sum(sides) - 2000) < 130  # four standard deviations
    assert ada == [labelling.candidate_first(7, name, "ada") for name in names]
    assert ada != [labelling.candidate_first(8, name, "ada") for name in names]


def test_the_order_is_the_annotators_own() -> None:
    """Order depends on annotator and seed, not on how the queue is listed, and not on the sides."""
    names = [f"q{k}" for k in range(50)]
    ada = labelling.order(names, annotator="ada", seed=0)
    assert ada == labelling.order(names[::-1], annotator="ada", seed=0)
    assert ada not in (names, labelling.order(names, annotator="ben", seed=0))
    assert sorted(ada) == sorted(names)


def test_the_blind_view_holds_texts_and_nothing_else() -> None:
    """Request, sources the rubric uses, and two texts by place: no name, id, label or category."""
    rubric = parse(
        "---\nname: x\nversion: 1\ntitle: T\nsummary: S\nuses: [context, reference]\n"
        "criteria:\n  - id: a\n    text: t\n    weight: 1\n---\nbody\n"
    )
    item = {"context": ("source text",), "reference": "known", "category": "secret", "metadata": {"x": "secret"}}
    shown = pair("secret", messages=(Message("user", "hi"), Message("assistant", "ho")), **item)
    view = labelling.blind(replace(shown, label=Outcome.WIN), rubric, first_is_candidate=False)
    assert view.sections == (
        ("Request", "[user]\nhi\n\n[assistant]\nho"),
        ("Source 1", "source text"),
        ("Reference answer", "known"),
    )
    assert (view.first, view.second) == ("the other", "the one")
    assert "secret" not in repr(view) and "cand" not in repr(view) and "win" not in repr(view)
    plain = labelling.blind(shown, rubric.model_copy(update={"uses": ()}), first_is_candidate=True)
    assert ([title for title, _ in plain.sections], plain.first) == (["Request"], "the one")
    assert view.hidden == ""
    assert "1 source and a reference answer" in plain.hidden and "nor to the judge" in plain.hidden
    assert "source text" not in repr(plain) and "known" not in repr(plain)


@pytest.mark.parametrize("how", ["random", "stratified", "active", "all"])
def test_every_draw_stores_chances_that_sum_to_its_size(how: str) -> None:
    """A draw of 40 of 120 has 40 different pairs, each with its chance, the same for the same seed."""
    want = Request(how, None if how == "all" else 40, seed=5)
    drawn = labelling.drawing(frame(120), want)
    assert len({place.pair_id for place in drawn.places}) == (120 if how == "all" else 40)
    assert all(0 < place.probability <= 1 and place.drawn == how for place in drawn.places)
    assert drawn == labelling.drawing(frame(120)[::-1], want)
    if how == "random":
        assert {place.probability for place in drawn.places} == {40 / 120}
    if how == "stratified":
        assert Counter(place.stratum for place in drawn.places) == {"a": 20, "b": 20}


def test_a_small_run_is_drawn_whole_and_stays_a_random_draw() -> None:
    """Without --n at most 100 pairs are drawn; where that is all of them, a part of the labels still speaks for all."""
    drawn = labelling.drawing(frame(40), Request())
    assert (len(drawn.places), {place.drawn for place in drawn.places}) == (40, {"random"})
    assert len(labelling.drawing(frame(240), Request()).places) == 100
    with pytest.raises(InputError, match="41 pairs cannot be drawn from 40"):
        labelling.drawing(frame(40), Request(n=41))


def test_escalation_takes_all_doubtful_pairs_and_an_audit_of_the_others() -> None:
    """Pairs without a verdict, with a flip, or below a confidence come with chance 1, the others with a known one."""
    drawn = labelling.drawing(frame(200), Request("escalated", 30, below=0.6))
    doubtful = {f.pair_id for f in frame(200) if f.confidence is None or not f.consistent or f.confidence < 0.6}
    assert {place.pair_id for place in drawn.places if place.drawn == "escalated"} == doubtful
    audit = [place for place in drawn.places if place.drawn == "random"]
    assert (len(audit), {place.probability for place in audit}) == (30, {30 / (200 - len(doubtful))})
    for want, message in (
        (Request("escalated", 29), "at least 30 of the"),
        (Request("escalated", 30, below=1.0), "every pair is escalated"),
    ):
        with pytest.raises(InputError, match=message):
            labelling.drawing(frame(200), want)
    sure = [Framed(f"p{k}", "", 0.9, consistent=True) for k in range(9)]
    with pytest.raises(InputError, match="no pair is escalated; use --draw random"):
        labelling.drawing(sure, Request("escalated"))
    with pytest.raises(InputError, match="needs a judged run"):
        labelling.drawing([Framed("a"), Framed("b")], Request("active", 1))


@pytest.mark.parametrize("how", ["random", "active", "escalated"])
def test_labels_of_a_draw_are_unbiased_also_half_way(how: str) -> None:
    """Whoever stops in the middle has a random part of the draw: the weighted mean misses the truth by noise alone."""
    pairs = frame(160)
    human = {f.pair_id: float(f.confidence is None or not f.consistent) for f in pairs}  # what is drawn more often
    run = JudgedRun(tuple(Judged(f.pair_id, f.pair_id, 0.5, 0.0, 0.5) for f in pairs), "cand", "base", "helpfulness@1")
    truth = float(np.mean(list(human.values())))
    words = {1.0: Choice.FIRST, 0.0: Choice.SECOND}
    found = []
    for seed in range(150):
        drawn = labelling.drawing(pairs, Request(how, 60, seed=seed))
        places = {place.pair_id: place for place in drawn.places}
        session, rows = labelling.begin(tuple(places), [], annotator="ada", seed=seed), []
        for _ in range(len(places) // 2):
            name = session.current
            assert name is not None
            side = human[name] if labelling.candidate_first(seed, name, "ada") else 1 - human[name]
            session, change = session.cast(words[side])
            rows.append(json.dumps(row_of(session, change, places[name])))
        joined = join(run, GoldSet.from_lines(rows))
        assert isinstance(joined, Joined)
        found.append(float(joined.sample.weights @ joined.value / joined.sample.weights.sum()))
    assert abs(np.mean(found) - truth) < 4 * np.std(found) / np.sqrt(len(found)) + 0.004


def test_a_draw_grows_only_where_its_chances_can_be_recounted() -> None:
    """A larger random or stratified draw holds the smaller one; others, and smaller ones, are refused with reason."""
    for how in ("random", "stratified"):
        small = labelling.drawing(frame(120), Request(how, 20))
        large = labelling.extended(small, frame(120), 50)
        assert large.places[:20] == small.places
        assert {place.pair_id for place in large.places} == {
            place.pair_id for place in labelling.drawing(frame(120), Request(how, 50)).places
        }
        assert {place.probability for place in large.places[20:]} == {50 / 120}
        with pytest.raises(InputError, match="never shrinks"):
            labelling.extended(large, frame(120), 20)
    for request in (Request("active", 20), Request("stratified", 20, by="risk"), Request("escalated", 30)):
        with pytest.raises(InputError, match="cannot grow"):
            labelling.extended(labelling.drawing(frame(120), request), frame(120), 50)


def test_disputed_pairs_are_those_of_others() -> None:
    """The queue of an expert does not move while the expert labels it."""
    rows = [
        {"pair_id": name, "annotator": who, "outcome": said}
        for name, who, said in [
            ("a", "ada", "win"), ("a", "ben", "loss"), ("b", "ada", "win"), ("b", "ben", "win"), ("c", "ada", "tie"),
            ("b", "eve", "loss"),
        ]
    ]  # fmt: skip
    assert labelling.disputed(rows, annotator="eve", where="x") == ("a",)
    assert labelling.disputed(rows, annotator="zoe", where="x") == ("a", "b")


def test_agreement_counts_shared_pairs() -> None:
    """Every two annotators with pairs in common, with n; none where they share nothing."""
    rows = [
        json.dumps({"pair_id": f"p{k}", "annotator": who, "outcome": "win" if k < limit else "tie"})
        for who, limit, pairs in (("ada", 10, range(10)), ("ben", 8, range(10)), ("eve", 0, range(20, 22)))
        for k in pairs
    ]
    (shared,) = labelling.agreements(GoldSet.from_lines(rows))
    assert (shared.first, shared.second, shared.agreement.value, shared.agreement.n) == ("ada", "ben", 0.8, 10)


# The files.


def vote(log: LabelLog, key: str = "1", who: str = "ada", note: str = "") -> None:
    session = labelling.begin(QUEUE, log.rows, annotator=who, seed=0).noted(note)
    _, rows = press(session, key)
    for entry in rows:
        log.append(entry)


def test_the_log_reads_as_a_gold_set_whatever_is_noted(tmp_path: Path) -> None:
    """Line separators, quotes and control characters of a note stay inside its line."""
    path = tmp_path / "new" / "gold.jsonl"
    notes = ["plain", 'a "quote"\nand a line', "sep\u2028\u2029\x85\x0b\x1e end", "\x00\x1b[31m", "日本語 🎉"]
    with LabelLog(path) as log:
        for note in notes:
            vote(log, note=note)
    gold = GoldSet.read(path)
    assert sorted(item.labels[0].rationale for item in gold.items) == sorted(note.strip() for note in notes)
    assert read_rows(path) == [json.loads(line) for line in path.read_text().splitlines()]
    row = json.dumps({**read_rows(path)[0], "pair_id": "by hand", "rationale": "a\u2028b"}, ensure_ascii=False)
    path.write_text(f"{row}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"gold\.jsonl:1"):
        LabelLog(path)


def test_a_torn_last_line_is_cut_and_a_whole_one_kept(tmp_path: Path) -> None:
    """Half a row is cut when the log is opened and counted; a row that only lacks its newline is whole."""
    path = tmp_path / "gold.jsonl"
    with LabelLog(path) as log:
        vote(log)
        vote(log)
    whole = path.read_bytes()
    for end in range(whole.index(b"\n") + 1, len(whole) + 1):
        path.write_bytes(whole[:end])
        rows = len(read_rows(path))
        with LabelLog(path) as log:
            kept = 2 if end >= len(whole) - 1 else 1
            assert (rows, len(log.rows)) == (kept, kept)
            assert log.cut == (0 if kept == 2 else end - whole.index(b"\n") - 1)
            vote(log)
        assert len(GoldSet.read(path)) == kept + 1
    path.write_bytes(b'{"pair_id": "a"\n' + whole)
    with pytest.raises(InputError, match=r"gold\.jsonl:1"):
        LabelLog(path)


def test_a_row_that_no_reader_takes_is_never_written(tmp_path: Path) -> None:
    """A second label without a revision, another provenance, an unknown outcome: refused, and the file is unchanged."""
    path = tmp_path / "gold.jsonl"
    with LabelLog(path) as log:
        vote(log)
        before = path.read_bytes()
        row = log.rows[0]
        for bad in (
            row,
            {**row, "annotator": "ben", "probability": 0.25},
            {**row, "annotator": "ben", "candidate": "other"},
            {**row, "annotator": "ben", "outcome": "first"},
            {**row, "annotator": "ben", "closeness": 2},
            {**row, "pair_id": ""},
        ):
            with pytest.raises(InputError, match="new row"):
                log.append(bad)
        assert path.read_bytes() == before
        log.append({**row, "outcome": "tie", "revises": True})
    assert GoldSet.read(path).items[0].labels[0].outcome is Outcome.TIE
    path.write_text('{"id": "a", "prompt": "q", "response_a": "x", "response_b": "y", "label": "A"}\n')
    with pytest.raises(InputError, match="not a log of labels"):
        LabelLog(path)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """While one process labels into a file another one is turned away with a way out, and may later go on."""
    path = tmp_path / "gold.jsonl"
    code = f"from pathlib import Path; from judge.labels import LabelLog; LabelLog(Path({str(path)!r}))"
    command = [sys.executable, "-c", code]
    folder = Path(__file__).parent.parent
    with LabelLog(path):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and "another process is labelling into this file" in done.stderr
    assert subprocess.run(command, cwd=folder, check=False).returncode == 0


def test_the_draw_is_kept_beside_the_labels(tmp_path: Path) -> None:
    """A draw and its extension are read back as they were; half a record is as none, a strange one is an error."""
    labels = tmp_path / "gold" / "s.jsonl"
    assert read_draw(labels) is None
    small = labelling.drawing(frame(60), Request("random", 20))
    record = DrawRecord(small, SUBJECT, "text", {"run": "r-1"})
    write_draw(labels, record, at="2026-01-01")
    assert read_draw(labels) == record
    with pytest.raises(InputError, match="a draw already"):
        write_draw(labels, record, at="2026-01-01")
    large = labelling.extended(small, frame(60), 30)
    extend_draw(labels, large, known=20, at="2026-01-02")
    assert read_draw(labels) == replace(record, drawing=large)
    path = draw_path(labels)
    assert path.name == "s.draw.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:40])
    assert read_draw(labels) == record
    path.write_bytes(lines[0][:40])
    assert read_draw(labels) is None
    write_draw(labels, record, at="2026-01-01")
    assert read_draw(labels) == record
    for bad, message in ((b"[]\n", "not a draw"), (lines[1], "first record"), (lines[0] * 2, "second record")):
        path.write_bytes(bad)
        with pytest.raises(InputError, match=message):
            read_draw(labels)


def test_labels_about_something_else_are_refused_with_the_difference(tmp_path: Path) -> None:
    """Another candidate, baseline, rubric, rubric text, or other answers under the same names never enter a file."""
    path = tmp_path / "s.jsonl"
    refuse_other(path, [], None, SUBJECT)
    refuse_other(path, [], SUBJECT, SUBJECT)
    for change, message in (
        ({"candidate": "c2"}, "candidate 'cand', this would add labels about candidate 'c2'"),
        ({"baseline": "b2"}, "baseline 'base'"),
        ({"rubric": "safety@1"}, "rubric 'helpfulness@1'"),
        ({"evalset": "f" * 64}, "other answers under the same names"),
        ({"rubric_digest": "0" * 64}, "changed since the first label"),
    ):
        with pytest.raises(InputError, match=message):
            refuse_other(path, [], SUBJECT, replace(SUBJECT, **change))
    stray = {"pair_id": "a", "candidate": "older", "baseline": "base", "rubric": "helpfulness@1"}
    with pytest.raises(InputError, match="candidate 'older'"):
        refuse_other(path, [stray], SUBJECT, SUBJECT)
    with pytest.raises(InputError, match=r"no s\.draw\.jsonl"):
        refuse_other(path, [stray], None, SUBJECT)


# The text on the screen.


@given(st.text(max_size=300), st.integers(4, 90))
def test_wrapping_loses_nothing_and_keeps_its_width(text: str, width: int) -> None:
    """Every character comes out, dangerous ones visibly, on lines that are not too wide."""
    from judge.cli.keyboard import _cells
    from judge.render import safe

    lines = wrap(text, width)
    wanted = "".join(line.expandtabs(4) for line in safe(text.replace("\r\n", "\n")).split("\n"))
    assert "".join(lines) == wanted
    assert all(sum(map(_cells, line)) <= width for line in lines)
    assert not any(char in "".join(lines) for char in "\x1b\x07\r\n\u202e\u200b\x9b")


def test_answers_side_by_side_stay_in_their_columns() -> None:
    """Each answer stays behind its own bar, also with wide characters, empty texts and imitated titles."""
    lines = columns(("First", "一二三四五六七八九十" * 3), ("Second", "── First ──\n"), 40)
    assert lines[0].startswith("── First ") and "── Second" in lines[0]
    assert all(line.startswith("│") for line in lines[1:] if line)
    assert any("│ ── First ──" in line for line in lines)
    assert "(empty)" in columns(("First", ""), ("Second", "x"), 60)[0]
