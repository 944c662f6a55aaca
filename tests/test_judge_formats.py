"""Reading eval sets: what is understood, and what is refused with its place."""

from __future__ import annotations

from pathlib import Path

import orjson
import polars
import pytest

from judge.errors import InputError
from judge.formats import EvalSet, open_evalset
from judge.types import Message, Outcome, Pair


def jsonl(path: Path, *rows: object) -> Path:
    path.write_bytes(b"\n".join(row if isinstance(row, bytes) else orjson.dumps(row) for row in rows) + b"\n")
    return path


def row(name: str, **more: object) -> dict[str, object]:
    return {"id": name, "prompt": f"Q {name}", "candidate": "new", "baseline": "old", **more}


def only(found: EvalSet) -> Pair:
    (pair,) = found.pairs()
    return pair


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_the_same_set_in_any_format_has_the_same_digest(tmp_path: Path, suffix: str) -> None:
    """JSONL, JSON, CSV and Parquet of the same rows are the same eval set."""
    rows = [row("1", category="x"), row("2", category='y, "z"\nw')]
    plain = open_evalset(jsonl(tmp_path / "a.jsonl", *rows))
    path = tmp_path / f"b.{suffix}"
    frame = polars.DataFrame(rows)
    if suffix == "jsonl":
        jsonl(path, *rows)
    elif suffix == "json":
        path.write_bytes(orjson.dumps(rows))
    elif suffix == "csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)
    found = open_evalset(path)
    assert (found.digest, found.rows) == (plain.digest, 2)
    assert list(found.pairs()) == list(plain.pairs())


def test_rich_rows_keep_everything(tmp_path: Path) -> None:
    """Messages, context, reference, tags, model, latency, tokens and cost are read."""
    path = jsonl(
        tmp_path / "a.jsonl",
        {
            "messages": [{"role": "user", "content": "hello"}],
            "context": ["c1", "c2"],
            "reference": "ref",
            "tags": ["t"],
            "metadata": {"risk": "high"},
            "label": "candidate",
            "candidate": {
                "text": "new",
                "model": "m2",
                "latency_ms": 12.5,
                "tokens": 3,
                "cost": 0.001,
                "tool_calls": [{"name": "f"}],
            },
            "baseline": {"messages": [{"role": "assistant", "content": "old"}]},
        },
    )
    pair = only(open_evalset(path))
    assert pair.item.messages == (Message("user", "hello"),)
    assert (pair.item.prompt, pair.item.context, pair.item.reference) == ("hello", ("c1", "c2"), "ref")
    assert (pair.candidate.model, pair.candidate.latency_ms, pair.candidate.tokens, pair.candidate.cost) == (
        "m2",
        12.5,
        3,
        0.001,
    )
    assert (pair.baseline.text, pair.label, pair.item.metadata["risk"]) == ("old", Outcome.WIN, "high")


def test_gold_shaped_rows_are_understood_as_they_are(tmp_path: Path) -> None:
    """response_a plays the candidate; A, B and tie become its outcomes."""
    path = jsonl(
        tmp_path / "a.jsonl",
        {"id": "1", "prompt": "q", "response_a": "x", "response_b": "y", "label": "B", "annotators": ["B"], "meta": {}},
    )
    pair = only(open_evalset(path))
    assert (pair.candidate.text, pair.baseline.text, pair.label) == ("x", "y", Outcome.LOSS)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_answer_files_are_joined_on_id(tmp_path: Path, suffix: str) -> None:
    """Prompts with separate answer files, in any order, give the same pairs as one file."""
    prompts = jsonl(tmp_path / "p.jsonl", *({"id": n, "prompt": f"Q {n}"} for n in "123"))
    sides = {}
    for side, text in (("candidate", "new"), ("baseline", "old")):
        rows = [{"id": n, "output": f"{text} {n}"} for n in "312"]
        sides[side] = tmp_path / f"{side}.{suffix}"
        if suffix == "jsonl":
            jsonl(sides[side], *rows)
        else:
            polars.DataFrame(rows).write_csv(sides[side])
    found = open_evalset(prompts, **sides)
    assert [(pair.id, pair.candidate.text, pair.baseline.text) for pair in found.pairs()] == [
        (n, f"new {n}", f"old {n}") for n in "123"
    ]


def test_other_columns_become_metadata(tmp_path: Path) -> None:
    """A CSV column that is no field of ours is kept, to slice by; an explicit metadata object wins."""
    path = tmp_path / "a.csv"
    path.write_text("prompt,candidate,baseline,team\nq,a,b,red\n")
    assert only(open_evalset(path)).item.metadata == {"team": "red"}
    rich = jsonl(tmp_path / "b.jsonl", row("1", team="red", metadata={"team": "blue", "risk": 1}))
    assert only(open_evalset(rich)).item.metadata == {"team": "blue", "risk": 1}


def test_rows_of_many_layouts_are_each_read_by_their_own(tmp_path: Path) -> None:
    """Columns may differ from row to row, under other names and empty, beyond what is kept of layouts."""
    rows: list[dict[str, object]] = [
        {"id": f"p{n}", "prompt": "Q", "candidate": f"c{n}", "baseline": "b", f"field{n}": n} for n in range(300)
    ]
    rows += [
        {"uid": "u", "instruction": "Q", "response_a": "a", "response_b": "b"},
        {
            "id": None,
            "question_id": "v",
            "prompt": None,
            "question": "Q2",
            "output_a": "a",
            "answer_b": "b",
            "label": "tie",
        },
        {
            "id": "w",
            "prompt": "Q",
            "candidate": None,
            "answer_a": "a2",
            "baseline": "b",
            "meta": {"k": 1},
            "tags": ["t"],
        },
    ]
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    found = list(open_evalset(path).pairs())
    assert [pair.item.metadata for pair in found[:300]] == [{f"field{n}": n} for n in range(300)]
    assert [(pair.id, pair.item.prompt, pair.candidate.text) for pair in found[300:]] == [
        ("u", "Q", "a"),
        ("v", "Q2", "a"),
        ("w", "Q", "a2"),
    ]
    assert (found[-2].label, found[-1].item.metadata, found[-1].item.tags) == (Outcome.TIE, {"k": 1}, ("t",))


def test_columns_can_be_named(tmp_path: Path) -> None:
    """--map tells which column is what."""
    path = jsonl(tmp_path / "a.jsonl", {"q": "Q", "mine": "new", "theirs": "old", "kind": "x"})
    mapping = {"prompt": "q", "candidate": "mine", "baseline": "theirs", "category": "kind"}
    pair = only(open_evalset(path, mapping=mapping))
    assert (pair.item.prompt, pair.candidate.text, pair.baseline.text, pair.item.category) == ("Q", "new", "old", "x")


def test_rows_without_id_are_named_by_their_content(tmp_path: Path) -> None:
    """The same content has the same id wherever it stands; a doubled row is a duplicate."""
    one = {"prompt": "q", "candidate": "x", "baseline": "y"}
    first = only(open_evalset(jsonl(tmp_path / "a.jsonl", one)))
    with pytest.raises(InputError, match=r"a.jsonl:2: id .* stands already on line 1"):
        open_evalset(jsonl(tmp_path / "a.jsonl", one, one))
    assert len(first.id) == 16


BAD = [
    (b'{"id": "x"', "malformed", "not JSON"),
    (b'\xff{"id": "x"}', "malformed", "not UTF-8 at byte 0"),
    (b'{"id": "x", "prompt": "\\ud800", "candidate": "a", "baseline": "b"}', "malformed", "not JSON"),
    (b"[1]", "malformed", "a row is an object, not list"),
    (b'{"id": "x", "candidate": "a", "baseline": "b"}', "missing", "no 'prompt'"),
    (b'{"id": "x", "prompt": "q", "baseline": "b"}', "missing", "no 'candidate' answer"),
    (b'{"id": "x", "prompt": "q", "candidate": null, "baseline": "b"}', "missing", "no 'candidate' answer"),
    (b'{"id": "x", "prompt": "q", "candidate": true, "baseline": "b"}', "malformed", "'candidate' is bool, not text"),
    (b'{"id": "x", "prompt": "q", "candidate": {"model": "m"}, "baseline": "b"}', "missing", "'candidate' has no text"),
    (b'{"id": "x", "prompt": "q", "candidate": "a", "baseline": "b", "label": "C"}', "malformed", "'label' is 'C'"),
    (b'{"id": "1", "prompt": "q", "candidate": "a", "baseline": "b"}', "duplicate", "id '1' stands already on line 1"),
    (b'{"id": "x", "prompt": "q", "candidate": "a", "baseline": "b", "context": 5}', "malformed", "'context' is int"),
    (
        b'{"id": "x", "prompt": "q", "candidate": {"text": "a", "tokens": "nan"}, "baseline": "b"}',
        "malformed",
        "'candidate.tokens' is not a number",
    ),
    (
        b'{"id": "x", "prompt": "q", "candidate": {"text": "a", "tool_calls": 3}, "baseline": "b"}',
        "malformed",
        "'candidate.tool_calls' is not a list",
    ),
    (b'{"id": "x", "messages": ["hi"], "candidate": "a", "baseline": "b"}', "malformed", "'messages' is not a list"),
]


@pytest.mark.parametrize(("bad", "kind", "reason"), BAD)
def test_a_row_that_cannot_be_judged_is_named_not_dropped(tmp_path: Path, bad: bytes, kind: str, reason: str) -> None:
    """By default a bad row stops with its line and reason; with skip_bad the rest is judged and the row stays
    counted.
    """
    path = jsonl(tmp_path / "a.jsonl", row("1"), bad)
    with pytest.raises(InputError, match="1 row cannot be judged") as caught:
        open_evalset(path)
    assert f"a.jsonl:2: {reason}" in str(caught.value)
    assert "--skip-bad" in str(caught.value)
    found = open_evalset(path, skip_bad=True)
    assert (found.rows, [(problem.line, problem.kind) for problem in found.problems]) == (1, [(2, kind)])
    assert [pair.id for pair in found.pairs()] == ["1"]


def test_unmatched_answers_are_listed_from_both_sides(tmp_path: Path) -> None:
    """An id without an answer, and an answer without a prompt, are both reported with file and line."""
    prompts = jsonl(
        tmp_path / "p.jsonl", {"id": "1", "prompt": "q", "baseline": "b"}, {"id": "2", "prompt": "q", "baseline": "b"}
    )
    answers = jsonl(
        tmp_path / "c.jsonl",
        {"id": "1", "text": "a"},
        {"id": "9", "text": "a"},
        {"text": "a"},
        {"id": "1", "text": "b"},
    )
    found = open_evalset(prompts, candidate=answers, skip_bad=True)
    assert sorted((problem.kind, Path(problem.file).name, problem.line) for problem in found.problems) == [
        ("duplicate", "c.jsonl", 4),
        ("missing", "c.jsonl", 3),
        ("unmatched", "c.jsonl", 2),
        ("unmatched", "p.jsonl", 2),
    ]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf\n"])
def test_an_empty_set_is_refused(tmp_path: Path, content: bytes) -> None:
    """No rows is an error, not a result."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match="the eval set is empty"):
        open_evalset(path)


def test_only_bad_rows_are_refused_even_when_skipping(tmp_path: Path) -> None:
    """skip_bad needs something left to judge."""
    with pytest.raises(InputError, match="name the columns with --map"):
        open_evalset(jsonl(tmp_path / "a.jsonl", {"x": 1}), skip_bad=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "no such file"),
        ("a.txt", b"x", "unknown format .txt"),
        ("a.json", b"{}", "is a list of rows"),
        ("a.json", b"[", "not JSON"),
        ("a.csv", b"id,prompt,candidate,baseline\n1,q,a\n", "does not have the header's 4 columns"),
        ("a.csv", b"id,prompt,candidate,baseline\n1,q,\xff,b\n", "a.csv:2: not UTF-8"),
        ("a.csv", b"id,prompt,candidate,candidate\n1,q,a,b\n", "stands twice in the header"),
        ("a.parquet", b"", "not a Parquet file"),
        ("a.parquet", b"garbage", "not a Parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_error(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    """The error names the file, the place and the reason."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_evalset(tmp_path / name)


def test_an_unknown_mapped_field_or_column_is_refused(tmp_path: Path) -> None:
    """--map names a known field and an existing column."""
    path = jsonl(tmp_path / "a.jsonl", row("1"))
    with pytest.raises(InputError, match="unknown field"):
        open_evalset(path, mapping={"candidat": "x"})
    with pytest.raises(InputError, match="no column 'nope'"):
        open_evalset(path, mapping={"candidate": "nope"})


def test_mapped_columns_need_not_be_in_the_answer_files(tmp_path: Path) -> None:
    """--map id=qid speaks of the eval set; an answer file with a plain id is joined all the same."""
    prompts = jsonl(tmp_path / "p.jsonl", {"qid": "1", "prompt": "q", "baseline": "b"})
    answers = jsonl(tmp_path / "c.jsonl", {"id": "1", "text": "a"})
    assert only(open_evalset(prompts, candidate=answers, mapping={"id": "qid"})).candidate.text == "a"


def test_big_and_odd_texts_pass_unchanged(tmp_path: Path) -> None:
    """300 KB answers, NUL, bidi, BOM inside, CRLF and empty answers are kept byte for byte."""
    odd = ["x" * 300_000, "a\x00b\u202e\ufeff", "", "line\r\nline"]
    path = jsonl(tmp_path / "a.jsonl", *(row(str(n), candidate=text) for n, text in enumerate(odd)))
    assert [pair.candidate.text for pair in open_evalset(path).pairs()] == odd


def test_a_field_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    """A text of more than five million characters is a problem of its row."""
    with pytest.raises(InputError, match="more than 5,000,000"):
        open_evalset(jsonl(tmp_path / "a.jsonl", row("1", candidate="x" * 5_000_001)))


def test_a_file_that_changes_while_it_is_judged_is_noticed(tmp_path: Path) -> None:
    """The second reading must find the rows of the first."""
    path = jsonl(tmp_path / "a.jsonl", row("1"), row("2"))
    found = open_evalset(path)
    jsonl(path, row("1"))
    with pytest.raises(InputError, match="changed while it was judged"):
        list(found.pairs())


def test_limit_takes_the_first_rows(tmp_path: Path) -> None:
    """A limited set is the set of its first rows."""
    path = jsonl(tmp_path / "a.jsonl", row("1"), row("2"), row("3"))
    found = open_evalset(path, limit=2)
    assert [pair.id for pair in found.pairs()] == ["1", "2"]


def test_real_dirty_rows_are_counted(gold: object) -> None:
    """PandaLM holds JSON booleans as text: they are named, and nothing else is left out."""
    found = open_evalset(gold("pandalm") / "pairs.jsonl", skip_bad=True)  # type: ignore[operator]
    assert found.rows + len(found.problems) == 999
    assert {problem.kind for problem in found.problems} <= {"malformed"}


def test_a_misspelt_column_is_said_once_with_what_was_meant(tmp_path: Path) -> None:
    """Thirty rows without a field are one line that counts them and names the column that was meant, if one is near."""
    row = {"prompt": "q", "candidate": "a", "basline": "b"}
    path = jsonl(tmp_path / "e.jsonl", *({"id": str(k), **row} for k in range(30)))
    with pytest.raises(InputError) as caught:
        open_evalset(path)
    said = str(caught.value)
    assert said.count("basline") == 2 and len(said.splitlines()) == 3
    assert "no 'baseline' answer; did you mean the column 'basline'? Then give --map baseline=basline" in said
    assert "(and 29 more like it)" in said
    assert open_evalset(path, mapping={"baseline": "basline"}).rows == 30
    with pytest.raises(InputError, match=r"no column 'baslin' \(mapped to baseline\); did you mean 'basline'\?"):
        open_evalset(path, mapping={"baseline": "baslin"})
    path = jsonl(tmp_path / "f.jsonl", {"prompt": "q", "candidate": "a", "other": "b"})
    with pytest.raises(InputError) as caught:
        open_evalset(path)
    assert "did you mean" not in str(caught.value)


def test_how_an_answer_ended_is_not_in_the_digest(tmp_path: Path) -> None:
    """No judge sees it, and a set that has it keeps the digest that older versions gave it; what is no text is no
    word.
    """
    digests = []
    for finish in (None, "length", {"odd": 1}):
        row = {"id": "a", "prompt": "p", "candidate": {"text": "x"}, "baseline": {"text": "y"}}
        if finish is not None:
            row["candidate"] = {"text": "x", "finish_reason": finish}
        path = tmp_path / "e.jsonl"
        path.write_bytes(orjson.dumps(row) + b"\n")
        checked = open_evalset(path)
        digests.append(checked.digest)
        assert next(checked.pairs()).candidate.finish == (finish if isinstance(finish, str) else None)
    assert len(set(digests)) == 1
