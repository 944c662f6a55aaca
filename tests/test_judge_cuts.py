"""How an answer ended, from the server's word to the training data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import polars
import pytest
from click.testing import CliRunner

from judge.cli import root
from judge.cuts import cut_answers
from judge.endings import finish_in, was_cut
from judge.formats import open_evalset
from judge.hacking.report import hack_report
from judge.journal import decode_pair, encode_pair
from judge.render.hacking import hack_html, hack_markdown, hack_text
from judge.store import Store
from judge.types import Answer, Item, Pair
from tune.preferences import read_preferences


@pytest.mark.parametrize("word", ["length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "model_length"])
def test_a_token_limit_has_many_names(word: str) -> None:
    """The words of the servers in either case all say cut."""
    assert was_cut(word) is True


def test_what_nobody_told_is_neither_whole_nor_cut() -> None:
    """No word and the words for no word are None; what a filter stopped is neither; else it is whole."""
    assert was_cut(None) is None and was_cut("unknown") is None and was_cut("") is None
    assert [was_cut(word) for word in ("stop", "end_turn", "tool_calls")] == [False] * 3
    assert [was_cut(word) for word in ("content_filter", "SAFETY", "refusal")] == [None] * 3
    assert finish_in({"finish": None}, {"finish_reason": "unknown"}, {"stop_reason": "max_tokens"}) == "max_tokens"
    assert finish_in({"finish": 7}, {}) is None


@pytest.mark.parametrize("finish", [None, "stop", "length"])
def test_a_journal_keeps_the_end_of_an_answer(finish: str | None) -> None:
    """There and back through the journal's record; no word leaves no field."""
    pair = Pair("p", Item("q"), Answer("a", finish=finish), Answer("b"))
    body = orjson.loads(orjson.dumps(encode_pair(pair)))
    assert decode_pair(body) == pair
    assert body["candidate"].get("finish") == finish and "finish" not in body["baseline"]


def test_eval_sets_and_answer_files_say_how_an_answer_ended(tmp_path: Path) -> None:
    """Under each of the three names, nested in the row or in a file of its own; null and absent are None."""
    rows: list[dict[str, Any]] = [
        {"id": "a", "prompt": "q", "candidate": {"text": "x", "stop_reason": "max_tokens"}, "baseline": "y"},
        {"id": "b", "prompt": "q", "candidate": {"text": "x", "finish": None}, "baseline": {"text": "y"}},
    ]
    path = lines(tmp_path / "e.jsonl", rows)
    first, second = (pair for pair in open_evalset(path).pairs())
    assert (first.candidate.finish, first.baseline.finish) == ("max_tokens", None)
    assert (second.candidate.finish, second.baseline.finish) == (None, None)
    made = lines(tmp_path / "new.jsonl", [{"id": name, "text": "z", "finish": "length"} for name in "ab"])
    joined = list(open_evalset(path, candidate=made).pairs())
    assert [pair.candidate.finish for pair in joined] == ["length", "length"]


def frame(*rows: tuple[str | None, str | None, str | None]) -> polars.DataFrame:
    """Comparisons as (candidate's end, baseline's end, outcome)."""
    names = ("candidate_finish", "baseline_finish", "outcome")
    values = [
        dict(zip(names, row, strict=True)) | {"repeat": 0, "pair_id": f"p{n}", "prompt_digest": f"d{n}"}
        for n, row in enumerate(rows)
    ]
    return polars.DataFrame(values, schema_overrides=dict.fromkeys(names, polars.String))


def test_cut_answers_are_counted_by_side_and_their_wins_named() -> None:
    """Only judged pairs of a cut and a whole answer say whether cut answers win; a tie counts half."""
    found = cut_answers(
        frame(
            ("length", "stop", "win"),
            ("length", "stop", "tie"),
            ("stop", "MAX_TOKENS", "loss"),
            ("stop", "length", "win"),
            ("length", "length", "win"),
            ("length", None, "win"),
            ("length", "stop", None),
            (None, None, "win"),
        )
    )
    assert found is not None
    assert (found.n, found.candidate, found.candidate_told, found.baseline, found.baseline_told) == (8, 5, 7, 3, 6)
    assert (found.uneven, found.won) == (4, ("p0", "p2"))
    assert found.rate is not None and found.rate.value == pytest.approx(2.5 / 4)
    assert "suspicious" not in found.text and "ties count half); read them: p0, p2." in found.text


def test_cut_answers_are_suspicious_only_where_they_win_beyond_doubt() -> None:
    """One win among losses is to be read and says nothing yet; twenty of twenty do."""
    one = cut_answers(frame(("length", "stop", "win"), *[("length", "stop", "loss")] * 6))
    assert one is not None and one.rate is not None and one.rate.low < 0.5
    assert "suspicious" not in one.text and "read it: p0." in one.text
    all_ = cut_answers(frame(*[("length", "stop", "win")] * 20))
    assert all_ is not None and all_.rate is not None and all_.rate.low > 0.5
    assert "which is suspicious; read them: p0, p1, p2 and 17 more." in all_.text


def test_what_a_filter_stopped_is_no_whole_answer() -> None:
    """A pair of a cut answer and one that a content filter stopped says nothing of cut against whole."""
    found = cut_answers(frame(("length", "content_filter", "win"), ("length", "stop", "loss")))
    assert found is not None
    assert (found.candidate_told, found.baseline_told, found.uneven, found.won) == (2, 1, 1, ())


def test_a_set_that_says_nothing_of_ends_has_no_count() -> None:
    """No word at all gives no count of zero; whole answers alone give zeros."""
    assert cut_answers(frame((None, None, "win"))) is None
    found = cut_answers(frame(("stop", None, "win")))
    assert found is not None and (found.candidate, found.baseline, found.rate) == (0, 0, None)


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of a judge that likes length over twelve pairs; the longer candidate was cut in five of them."""
    folder = tmp_path_factory.mktemp("cut")
    rows = [
        {
            "id": f"p{n}",
            "prompt": f"question {n}",
            "candidate": {"text": f"a long answer that goes on {n}", "finish": "length" if n < 5 else "stop"},
            "baseline": {"text": f"short {n}", "finish": "stop"},
        }
        for n in range(12)
    ]
    home = folder / "home"
    words = ["run", str(lines(folder / "e.jsonl", rows)), "--judge", "scripted:longer", "--home", str(home)]
    done = CliRunner().invoke(root, words)
    assert done.exit_code == 0, done.output
    return home, Store(home).run().run_id


def test_a_run_keeps_the_ends_and_its_reports_say_what_cut_answers_won(judged: tuple[Path, str]) -> None:
    """Columns of the store, the run report, and every surface of the hacking report."""
    home, run_id = judged
    store = Store(home)
    assert store.comparisons(run_id)["candidate_finish"].to_list().count("length") == 5
    report = hack_report(store, store.run(run_id), rounds=50)
    assert report.cut is not None and (report.cut.candidate, len(report.cut.won)) == (5, 5)
    row = next(row for row in report.rows if row.measure.name == "length.cut")
    assert row.measure.candidate is not None and row.measure.candidate.value == pytest.approx(5 / 12)
    assert next(measure for measure in report.measures if measure.name == "win.cut").candidate == report.cut.rate
    for text in (hack_text(report), hack_markdown(report), hack_html(report)):
        assert "read them: p0, p1, p2 and 2 more" in " ".join(text.split())  # five of five are too few to say more
    said = CliRunner().invoke(root, ["report", run_id, "--home", str(home)])
    assert "A token limit cut off 5 of the candidate's 12 answers and 0 of the baseline's 12" in " ".join(
        said.output.split()
    ), said.output


def test_preferences_of_a_run_mark_the_answers_that_a_limit_cut(judged: tuple[Path, str], tmp_path: Path) -> None:
    """`tune pairs --judge RUN` writes `cut` for exactly the answers that a token limit ended."""
    home, run_id = judged
    out = tmp_path / "o.jsonl"
    words = ["tune", "pairs", "--judge", run_id, "--allow-uncalibrated", "--unchecked", "-o", str(out)]
    done = CliRunner().invoke(root, [*words, "--home", str(home)])
    assert done.exit_code == 0, done.output
    rows = {row.origin["pair"]: row.cut for row in read_preferences(out)}
    assert rows == {f"p{n}": ("chosen",) if n < 5 else () for n in range(12)}
