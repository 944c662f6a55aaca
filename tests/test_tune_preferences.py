"""One row of preference data: what it refuses, what it keeps, and that a file reads back as it was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge.errors import InputError
from judge.formats import Problem
from tune.preferences import (
    BIAS,
    Preference,
    Source,
    digest_of,
    read_preferences,
    scan_preferences,
    with_bias,
    write_preferences,
)

words = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30).filter(lambda text: text.strip())
turns = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": words}),
    min_size=1,
    max_size=3,
).map(tuple)
said = words | turns
scalars = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | words
keys = st.text("abcxyz_", min_size=1, max_size=6)


@st.composite
def preferences(draw: Any) -> Preference:
    chosen = draw(words)
    return Preference(
        id=draw(words),
        prompt=draw(said),
        chosen=draw(st.sampled_from([chosen, ({"role": "assistant", "content": chosen},)])),
        rejected=draw(words.filter(lambda text: text != chosen)),
        p=draw(st.floats(0.5, 1.0)),
        source=draw(st.sampled_from(list(Source))),
        weight=draw(st.floats(0.01, 10.0)),
        rubric=draw(st.sampled_from(["", "helpfulness@1"])),
        why=draw(st.just("") | words),
        labeller=draw(st.just("") | words),
        close=draw(st.booleans()),
        metadata=draw(st.dictionaries(keys, scalars, max_size=3)),
        cut=draw(st.sampled_from([(), ("rejected",), ("chosen", "rejected")])),
        origin=draw(st.dictionaries(keys, scalars, max_size=2)),
        extra=draw(st.dictionaries(keys.map(lambda key: "x_" + key), scalars, max_size=2)),
    )


@given(st.lists(preferences(), min_size=1, max_size=5, unique_by=lambda row: row.id))
def test_a_file_reads_back_equal(rows: list[Preference]) -> None:
    """Every field, unknown keys included, survives writing and reading; the digest stays, for any order of rows."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.jsonl"
        assert write_preferences(path, rows) == len(rows)
        back = read_preferences(path)
    assert list(back) == rows
    assert digest_of(reversed(back)) == digest_of(rows)


def test_the_digest_covers_every_field() -> None:
    """Two sets that differ in a probability, a weight or one unknown key are two sets."""
    row = {"id": "a", "prompt": "q", "chosen": "x", "rejected": "y", "p": 0.9}
    digests = {
        digest_of([Preference.from_row({**row, **change})])
        for change in ({}, {"p": 0.8}, {"weight": 2.0}, {"mine": 1}, {"source": "judge"}, {"chosen": "z"})
    }
    assert len(digests) == 6


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"chosen": "y"}, "'chosen' equals 'rejected'"),
        ({"chosen": [{"role": "assistant", "content": "y"}]}, "'chosen' equals 'rejected'"),
        ({"chosen": " \n"}, "'chosen' is empty"),
        ({"prompt": ""}, "the prompt is empty"),
        ({"p": 0.4}, "swap chosen and rejected"),
        ({"p": "0.9"}, "'p' is '0.9', not a number"),
        ({"p": True}, "'p' is True, not a number"),
        ({"weight": 0}, "not above zero"),
        ({"source": "rumour"}, "'source' is 'rumour'; use human, rating, action, judge, gate"),
        ({"chosen": [{"content": "x"}]}, "'chosen' is neither a text nor a list"),
        ({"rejected": 5}, "'rejected' is neither a text nor a list"),
        ({"close": "yes"}, "'close' is 'yes'"),
        ({"metadata": []}, "'metadata' is list, not an object"),
        ({"rubric": 3}, "'rubric' is int, not text"),
        ({"cut": ["worse"]}, "it lists 'chosen', 'rejected' or both"),
        ({"cut": "rejected"}, "use a list of 'chosen', 'rejected' or both"),
        ({"rejected": None}, "no 'rejected'"),
    ],
)
def test_a_row_that_teaches_nothing_is_refused(change: dict[str, Any], says: str) -> None:
    """Each fault of a row is named with its field and, where there is one, the way out."""
    with pytest.raises(InputError, match=says.replace("(", r"\(")):
        Preference.from_row({"id": "a", "prompt": "q", "chosen": "x", "rejected": "y", **change})


def test_an_answer_that_only_calls_a_tool_is_no_empty_answer() -> None:
    """Two answers without text that call tools with other arguments are a pair."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "search", "arguments": {"q": "a"}}]}
    other = {**call, "tool_calls": [{"name": "search", "arguments": {"q": "b"}}]}
    row = Preference.from_row({"prompt": "q", "chosen": [call], "rejected": [other]})
    assert row.id
    with pytest.raises(InputError, match="equals"):
        Preference.from_row({"prompt": "q", "chosen": [call], "rejected": [dict(call)]})


def test_bad_rows_are_counted_and_named_and_the_rest_can_be_used(tmp_path: Path) -> None:
    """Each bad row (lone surrogate, double id, torn end, empty answer) is named by line; the rest can be read."""
    path = tmp_path / "pairs.jsonl"
    good = {"id": "a", "prompt": "q", "chosen": "x", "rejected": "y"}
    lines = [
        orjson.dumps(good),
        orjson.dumps(good),
        rb'{"id": "b", "prompt": "q", "chosen": "\ud800", "rejected": "y"}',
        orjson.dumps({"id": "c", "prompt": "q", "chosen": "", "rejected": "y"}),
        b"[1]",
        rb'{"id": "d", "prompt": "q", "cho',
    ]
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(InputError) as error:
        read_preferences(path)
    text = str(error.value)
    assert "5 of 6 rows cannot be used (1 duplicate, 3 malformed, 1 missing)" in text
    for line in (2, 3, 4, 5, 6):
        assert f"pairs.jsonl:{line}: " in text
    assert "id 'a' stands already on line 1" in text
    assert "the file ends in the middle of a row" in text
    assert [row.id for row in read_preferences(path, skip_bad=True)] == ["a"]
    assert sum(isinstance(found, Problem) for _line, found in scan_preferences(path)) == 5


def test_no_rows_are_no_data(tmp_path: Path) -> None:
    """An absent file and an empty one are refused."""
    with pytest.raises(InputError, match="no such file"):
        read_preferences(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="no preference that can be used"):
        read_preferences(tmp_path / "empty.jsonl")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """A row that cannot be written (a lone surrogate) leaves the file as it was and nothing beside it."""
    path = tmp_path / "pairs.jsonl"
    row = Preference("a", "q", "x", "y")
    write_preferences(path, [row])
    with pytest.raises(InputError, match="row 'b' cannot be written"):
        write_preferences(path, [row, Preference("b", "q", "\ud800", "y")])
    assert [kept.id for kept in read_preferences(path)] == ["a"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["pairs.jsonl"]


def test_every_source_says_what_it_favours() -> None:
    """The bias profile of each source stands in the row."""
    assert set(BIAS) == set(Source)
    row = with_bias(Preference("a", "q", "x", "y", source=Source.JUDGE))
    assert "self-preference" in row.metadata["known_bias"]
