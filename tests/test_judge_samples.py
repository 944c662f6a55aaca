"""The sample set says what it claims: faults are there, good answers are free of them, counts are as stated."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

SAMPLES = Path(__file__).resolve().parents[1] / "judge" / "samples"
ROW_KEYS = {"id", "prompt", "category", "tags", "context", "reference", "candidate", "baseline", "label", "metadata"}
NEEDED_KEYS = ROW_KEYS - {"context", "reference"}
META_KEYS = {"difficulty", "language", "schema", "answer_key"}
NEEDED_META = {"difficulty", "language", "answer_key"}
ANSWER_KEYS = {"fault", "fault_in", "why", "evidence", "constraint"}
NEEDED_ANSWER = {"fault", "fault_in", "why"}
FAULTS = {
    "wrong_fact",
    "broken_constraint",
    "off_topic",
    "padding",
    "needless_refusal",
    "unsafe_compliance",
    "invented_citation",
    "unsupported_claim",
    "broken_json",
    "hedging",
    "repetition",
    "garbled",
    "empty",
}
FAULT_SIDE = {"win": "baseline", "loss": "candidate", "tie": None}
SIDES = ("candidate", "baseline")
REFUSAL = re.compile(r"\b(can't|not able|not comfortable|won't|rather not|kann ich nicht)", re.IGNORECASE)
QUOTATION = re.compile(r'"([^"]{8,})"')

Row = dict[str, Any]


def _rows() -> list[Row]:
    return [json.loads(line) for line in (SAMPLES / "demo.jsonl").read_text(encoding="utf-8").splitlines()]


ROWS = _rows()


def _text(row: Row, side: str) -> str:
    return str(row[side]["text"])


def _fault(*names: str) -> list[Any]:
    """Rows with one of these faults, as parameters named by row id."""
    return [pytest.param(r, id=r["id"]) for r in ROWS if r["metadata"]["answer_key"]["fault"] in names]


def _category(name: str) -> list[Any]:
    return [pytest.param(r, id=r["id"]) for r in ROWS if r["category"] == name]


def _with(key: str, *faults: str) -> list[Any]:
    """Rows that carry a metadata field, and those whose fault says that they must."""
    return [
        pytest.param(r, id=r["id"])
        for r in ROWS
        if key in r["metadata"]["answer_key"] or r["metadata"]["answer_key"]["fault"] in faults
    ]


def _faulty(row: Row) -> str:
    return _text(row, row["metadata"]["answer_key"]["fault_in"])


def _good(row: Row) -> str:
    """The better answer of a decided pair."""
    return _text(row, "baseline" if row["metadata"]["answer_key"]["fault_in"] == "candidate" else "candidate")


def _good_sides(row: Row) -> list[str]:
    """Every answer without a planted fault: one in a decided pair, both in a tie."""
    return [_text(row, side) for side in SIDES if side != row["metadata"]["answer_key"]["fault_in"]]


def _fits(value: object, schema: dict[str, Any]) -> bool:
    """Whether a value fits the few JSON Schema keywords that the set uses."""
    kinds: dict[str, tuple[type, ...]] = {
        "object": (dict,),
        "array": (list,),
        "string": (str,),
        "integer": (int,),
        "number": (int, float),
        "boolean": (bool,),
        "null": (type(None),),
    }
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(isinstance(value, kinds[n]) and (n == "boolean" or not isinstance(value, bool)) for n in names):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, dict):
        properties = schema["properties"]
        return set(schema["required"]) <= set(value) <= set(properties) and all(
            _fits(v, properties[k]) for k, v in value.items()
        )
    if isinstance(value, list):
        return all(_fits(v, schema["items"]) for v in value)
    return True


def _valid_json(text: str, schema: dict[str, Any]) -> bool:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return False
    return _fits(value, schema)


def _keeps(text: str, constraint: dict[str, Any]) -> bool:
    """Whether an answer keeps a machine-readable limit of the set."""
    words, lines = len(text.split()), text.splitlines()
    for name, limit in constraint.items():
        match name:
            case "max_words":
                kept = words <= limit
            case "min_words":
                kept = words >= limit
            case "max_lines":
                kept = len(lines) <= limit
            case "bullets":
                kept = len(lines) == limit and all(line.startswith("- ") for line in lines)
            case "matches":
                kept = re.search(limit, text, re.MULTILINE) is not None
            case "avoids":
                kept = re.search(limit, text, re.MULTILINE) is None
            case _:
                raise AssertionError(f"unknown constraint {name!r}")
        if not kept:
            return False
    return True


@pytest.mark.parametrize("row", [pytest.param(r, id=r["id"]) for r in ROWS])
def test_row_fits_the_schema(row: Row) -> None:
    """A row has the fields its README names, with values from the closed lists."""
    meta, key = row["metadata"], row["metadata"]["answer_key"]
    assert NEEDED_KEYS <= set(row) <= ROW_KEYS
    assert NEEDED_META <= set(meta) <= META_KEYS
    assert NEEDED_ANSWER <= set(key) <= ANSWER_KEYS
    assert re.fullmatch(rf"demo-{re.escape(row['category'])}-\d{{3}}", row["id"])
    assert row["prompt"].strip() and row["tags"] and all(isinstance(t, str) for t in row["tags"])
    assert all(set(row[side]) == {"text"} and isinstance(row[side]["text"], str) for side in SIDES)
    assert row["label"] in FAULT_SIDE
    assert key["fault"] in FAULTS | {"none"}
    assert meta["difficulty"] in {"easy", "medium", "hard"}
    assert meta["language"] in {"en", "de", "es", "fr", "ja"}
    assert key["why"].endswith(".") and 20 < len(key["why"]) < 200
    assert ("context" in row) == (row["category"] == "grounded-qa")
    assert ("schema" in meta) == (row["category"] == "json-tools")


@pytest.mark.parametrize("row", [pytest.param(r, id=r["id"]) for r in ROWS])
def test_label_follows_from_where_the_fault_is(row: Row) -> None:
    """The side with the fault loses, and a tie has no fault."""
    key = row["metadata"]["answer_key"]
    assert key["fault_in"] == FAULT_SIDE[row["label"]]
    assert (key["fault"] == "none") == (row["label"] == "tie")


@pytest.mark.parametrize("row", [pytest.param(r, id=r["id"]) for r in ROWS if r["label"] != "tie"])
def test_why_names_a_side(row: Row) -> None:
    """The sentence that explains a decided pair speaks of the answers by their roles."""
    assert (
        "candidate" in row["metadata"]["answer_key"]["why"]
        or "baseline" in row["metadata"]["answer_key"]["why"]
        or "Both" in row["metadata"]["answer_key"]["why"]
    )


def test_ids_and_prompts_are_unique() -> None:
    """No id and no prompt occurs twice."""
    assert len({r["id"] for r in ROWS}) == len(ROWS)
    assert len({r["prompt"] for r in ROWS}) == len(ROWS)


def test_file_is_plain_utf8_jsonl() -> None:
    """Every line is one object without raw control characters, and the file ends with a line break."""
    raw = (SAMPLES / "demo.jsonl").read_bytes()
    assert raw.endswith(b"}\n") and b"\r" not in raw and not raw.startswith(b"\xef\xbb\xbf")
    assert raw.count(b"\n") == len(ROWS)


def test_size_and_balance() -> None:
    """At least 104 pairs in at least 8 equal categories; the candidate wins overall and loses three of them."""
    labels = Counter(r["label"] for r in ROWS)
    by_category = {
        name: Counter(r["label"] for r in ROWS if r["category"] == name) for name in {r["category"] for r in ROWS}
    }
    assert len(ROWS) >= 104 and len(by_category) >= 8
    assert {sum(counts.values()) for counts in by_category.values()} == {12}
    assert 0.48 <= labels["win"] / len(ROWS) <= 0.56
    assert 0.09 <= labels["tie"] / len(ROWS) <= 0.15
    lost = {name for name, counts in by_category.items() if counts["loss"] >= 2 * counts["win"]}
    assert lost == {"json-tools", "grounded-qa", "safety"}


def test_every_fault_occurs_on_both_sides() -> None:
    """Each fault is planted at least five times, and at least once in either answer."""
    counts = Counter((r["metadata"]["answer_key"]["fault"], r["metadata"]["answer_key"]["fault_in"]) for r in ROWS)
    for fault in FAULTS:
        assert sum(counts[fault, side] for side in SIDES) >= 5, fault
        assert all(counts[fault, side] for side in SIDES), fault


def test_length_decides_little() -> None:
    """The candidate is 25% to 35% longer in the mean, yet neither length is the safe bet."""
    total = {side: sum(len(_text(r, side)) for r in ROWS) for side in SIDES}
    assert 1.25 <= total["candidate"] / total["baseline"] <= 1.35
    decided = [r for r in ROWS if r["label"] != "tie"]
    longer = Counter(r["category"] for r in decided if len(_good(r)) > len(_faulty(r)))
    sizes = Counter(r["category"] for r in decided)
    assert 0.42 <= longer.total() / len(decided) <= 0.58
    assert all(0.3 <= longer[name] / size <= 0.7 for name, size in sizes.items()), longer


def test_variety() -> None:
    """Two identical pairs, eight to twelve other ties, four other languages, multi-line code and a few long answers."""
    same = [r for r in ROWS if r["candidate"] == r["baseline"]]
    assert len(same) == 2 and all(r["label"] == "tie" and "identical" in r["tags"] for r in same)
    assert 8 <= sum(r["label"] == "tie" for r in ROWS) - len(same) <= 12
    languages = Counter(r["metadata"]["language"] for r in ROWS)
    assert {name: n for name, n in languages.items() if name != "en"} == {"de": 2, "es": 2, "fr": 2, "ja": 2}
    assert any(_text(r, "candidate").count("\n") >= 8 and "```python" in _text(r, "candidate") for r in ROWS)
    assert sum(len(_text(r, side).split()) >= 200 for r in ROWS for side in SIDES) >= 3


@pytest.mark.parametrize("row", _category("json-tools"))
def test_json_is_valid_or_broken_as_labelled(row: Row) -> None:
    """Good answers parse and fit the schema, broken JSON does not, and other faults sit in valid JSON."""
    schema, fault = row["metadata"]["schema"], row["metadata"]["answer_key"]["fault"]
    assert all(_valid_json(text, schema) for text in _good_sides(row))
    if fault != "none":
        assert _valid_json(_faulty(row), schema) == (fault not in {"broken_json", "empty"})


@pytest.mark.parametrize("row", _category("grounded-qa"))
def test_good_grounded_answers_quote_the_passages(row: Row) -> None:
    """What a good answer puts in quotation marks stands in a passage, and the passages it cites exist."""
    for text in _good_sides(row):
        assert all(any(q in passage for passage in row["context"]) for q in QUOTATION.findall(text))
        assert all(1 <= int(n) <= len(row["context"]) for n in re.findall(r"\[(\d+)\]", text))


@pytest.mark.parametrize("row", _fault("invented_citation"))
def test_invented_citation_is_in_no_passage(row: Row) -> None:
    """An invented citation is a quotation, and no passage contains it."""
    assert row["metadata"]["answer_key"]["evidence"] in QUOTATION.findall(_faulty(row))
    assert QUOTATION.findall(_good(row)), "the good answer quotes"


@pytest.mark.parametrize("row", _fault("invented_citation", "unsupported_claim"))
def test_unsupported_words_are_not_in_the_source(row: Row) -> None:
    """The words that show an unsupported claim stand neither in the prompt nor in a passage."""
    source = "\n".join([row["prompt"], *row.get("context", [])])
    assert row["metadata"]["answer_key"]["evidence"] not in source


@pytest.mark.parametrize("row", _with("evidence", "wrong_fact", "invented_citation", "unsupported_claim"))
def test_evidence_is_in_the_faulty_answer_only(row: Row) -> None:
    """Evidence is a span of the faulty answer that the good one does not contain."""
    evidence = row["metadata"]["answer_key"]["evidence"]
    assert evidence in _faulty(row) and evidence not in _good(row)


@pytest.mark.parametrize("row", _with("constraint", "broken_constraint"))
def test_constraint_is_kept_by_the_good_answer_only(row: Row) -> None:
    """The good answer keeps the stated limit, the faulty one breaks it."""
    constraint = row["metadata"]["answer_key"]["constraint"]
    assert _keeps(_good(row), constraint) and not _keeps(_faulty(row), constraint)


@pytest.mark.parametrize("row", [pytest.param(r, id=r["id"]) for r in ROWS if r["category"] in {"facts", "reasoning"}])
def test_good_answers_contain_the_reference(row: Row) -> None:
    """Where a question has one short right answer, every good answer states it."""
    reference = row.get("reference", "").casefold()
    assert all(reference in text.casefold() for text in _good_sides(row))


@pytest.mark.parametrize("row", _fault("padding"))
def test_padding_is_three_times_longer(row: Row) -> None:
    """A padded answer is at least three times as long as the good one."""
    assert len(_faulty(row)) >= 3 * len(_good(row))


@pytest.mark.parametrize("row", _fault("repetition"))
def test_repetition_repeats_one_sentence(row: Row) -> None:
    """A repeated answer is one sentence, at least five times over."""
    sentences = [s.strip() for s in re.split(r"(?<=[.!?])\s+", _faulty(row)) if s.strip()]
    assert len(sentences) >= 5 and len(set(sentences)) == 1


@pytest.mark.parametrize("row", [pytest.param(r, id=r["id"]) for r in ROWS])
def test_only_empty_faults_are_empty(row: Row) -> None:
    """An answer is empty exactly where that is the planted fault."""
    assert all(text.strip() for text in _good_sides(row))
    if row["label"] != "tie":
        assert (not _faulty(row).strip()) == (row["metadata"]["answer_key"]["fault"] == "empty")


@pytest.mark.parametrize("row", _fault("needless_refusal"))
def test_needless_refusals_refuse(row: Row) -> None:
    """The faulty side of a harmless request refuses, the good side does not, and the row says that help is due."""
    assert REFUSAL.search(_faulty(row)) and not REFUSAL.search(_good(row))
    assert "must-help" in row["tags"] or row["category"] != "safety"


@pytest.mark.parametrize("row", [pytest.param(r, id=r["id"]) for r in ROWS if "must-refuse" in r["tags"]])
def test_harmful_requests_are_declined_by_the_good_side(row: Row) -> None:
    """The good answer to a harmful request declines, the faulty one does not."""
    assert all(REFUSAL.search(text) for text in _good_sides(row))
    if row["label"] != "tie":
        assert row["metadata"]["answer_key"]["fault"] == "unsafe_compliance" and not REFUSAL.search(_faulty(row))


@pytest.mark.parametrize("row", _category("coding"))
def test_good_python_parses(row: Row) -> None:
    """Python in a good answer is valid syntax."""
    for text in _good_sides(row):
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            assert ast.parse(block).body


def _table(heading: str) -> dict[str, list[str]]:
    """Read the README table whose first column has this heading, by its first cell."""
    lines = (SAMPLES / "README.md").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[cells[0]] = cells[1:]
    return rows


def test_readme_counts_are_those_of_the_file() -> None:
    """The tables in the README are the counts of the set."""
    labels: dict[str, Counter[str]] = {"all": Counter(r["label"] for r in ROWS)}
    for row in ROWS:
        labels.setdefault(row["category"], Counter())[row["label"]] += 1
    expected = {k: [str(n) for n in (c.total(), c["win"], c["tie"], c["loss"])] for k, c in labels.items()}
    assert _table("category") == expected

    faults: dict[str, Counter[str]] = {}
    for row in ROWS:
        key = row["metadata"]["answer_key"]
        faults.setdefault(key["fault"], Counter())[str(key["fault_in"])] += 1
    ties = faults.pop("none").total()
    by_fault = {k: [str(n) for n in (c.total(), c["baseline"], c["candidate"])] for k, c in faults.items()}
    assert _table("fault") == by_fault | {"none (ties)": [str(ties), "-", "-"]}


def test_readme_length_sentence_is_true() -> None:
    """The README states how often the longer answer is the better one."""
    decided = [r for r in ROWS if r["label"] != "tie"]
    longer = sum(len(_good(r)) > len(_faulty(r)) for r in decided)
    shares = []
    for name in {r["category"] for r in decided}:
        pairs = [r for r in decided if r["category"] == name]
        shares.append(sum(len(_good(r)) > len(_faulty(r)) for r in pairs) / len(pairs))
    words = " ".join((SAMPLES / "README.md").read_text(encoding="utf-8").split())
    assert f"the better one in {longer} of the {len(decided)} decided pairs" in words
    assert f"in each category between {min(shares):.0%} and {max(shares):.0%} of them" in words


def test_no_report_slices_by_the_answer_key() -> None:
    """The key takes more values than a column of segments may have, so which answer is faulty is no segment."""
    from judge.slices import USUAL
    from judge.store.rollups import _MOST_VALUES

    assert len({json.dumps(row["metadata"]["answer_key"]) for row in ROWS}) > _MOST_VALUES
    assert not {"answer_key", *ANSWER_KEYS} & set(USUAL)
