"""Other tools' files: import, export, import gives the same; nothing is lost, nothing is dropped in silence."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.gold import GoldSet
from judge.cli import root
from judge.errors import InputError
from judge.exchange import FORMATS, Options, export, ingest
from judge.exchange.preferences import TRL
from judge.exchange.rows import decode
from judge.exchange.tasks import key_path
from judge.formats import open_evalset

REPO = Path(__file__).resolve().parent.parent

words = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20).filter(lambda text: text.strip())
scalars = (
    st.none() | st.booleans() | st.integers(-(2**50), 2**50) | st.floats(allow_nan=False, allow_infinity=False) | words
)
extras = st.dictionaries(
    st.sampled_from(["metadata", "p", "source", "weight", "id_", "foreign", "candidate", "messages", "x", "a.b"]),
    st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2), max_leaves=4
    ),
    max_size=3,
)
turn = lambda role: st.fixed_dictionaries({"role": st.just(role), "content": words})


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Both, the second's keys last and stronger."""
    return {**first, **second}


def with_extras(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Rows of a format with keys that nobody knows."""
    return st.builds(merged, extras, st.fixed_dictionaries(fields))


NAMES = (
    "id", "input", "output", "outputs", "inputs", "messages", "role", "content", "prompt", "chosen", "rejected",
    "label", "completion", "instruction", "preference", "output_1", "output_2", "rubrics", "criterion", "points",
    "attributes", "resourceSpans", "scopeSpans", "spans", "resourceLogs", "scopeLogs", "logRecords", "key",
    "value", "stringValue", "gen_ai.input.messages", "gen_ai.output.messages", "parts", "events", "name", "data",
    "task", "fields", "annotations", "responses", "choices", "message", "context", "llm", "input_messages",
    "scores", "vars", "assert", "raw", "response", "touchstone", "tool_calls", "error", "usage", "metadata",
    "arrayValue", "values", "eventName", "tools",
)  # fmt: skip
two_texts = st.lists(words, min_size=2, max_size=2, unique=True)


@st.composite
def trl_rows(draw: Any) -> dict[str, Any]:
    """Every shape of TRL's preference data."""
    better, worse = draw(two_texts)
    asked = draw(words)
    shape = draw(
        st.sampled_from(["standard", "conversational", "implicit", "implicit turns", "text beside turns", "full"])
    )
    system = draw(st.just([]) | st.lists(turn("system"), min_size=1, max_size=1))
    before = [*system, {"role": "user", "content": asked}]
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in (better, worse))
    row: dict[str, Any] = draw(extras.filter(lambda found: not {"prompt", "chosen"} & set(found)))
    if shape == "standard":
        return row | {"prompt": asked, "chosen": better, "rejected": worse}
    if shape == "implicit":
        return row | {"chosen": f"{asked}: a{better}", "rejected": f"{asked}: b{worse}"}
    if shape == "conversational":
        return row | {"prompt": before, "chosen": chosen, "rejected": rejected}
    if shape == "implicit turns":
        return row | {"chosen": before + chosen, "rejected": before + rejected}
    if shape == "text beside turns":
        return row | {"prompt": asked, "chosen": chosen, "rejected": rejected}
    return row | {"prompt": asked, "chosen": before + chosen, "rejected": before + rejected}


def otlp(value: Any) -> dict[str, Any]:
    """A value as an OTLP AnyValue."""
    return {"stringValue": value} if isinstance(value, str) else {"intValue": str(value)}


@st.composite
def otel_rows(draw: Any) -> dict[str, Any]:
    """One export with one GenAI span, as a collector writes it."""
    parts = st.fixed_dictionaries({"type": st.just("text"), "content": words})
    end = draw(st.sampled_from([{}, {"finish_reason": "stop"}, {"finish_reason": "length"}, {"finish_reason": ""}]))
    message = lambda role: {"role": role, "parts": draw(st.lists(parts, min_size=1, max_size=2))}
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": draw(words),
        "gen_ai.input.messages": orjson.dumps([message("user")]).decode(),
        "gen_ai.output.messages": orjson.dumps([{**message("assistant"), **end}]).decode(),
        "gen_ai.usage.output_tokens": draw(st.integers(0, 9999)),
        "app.unknown": draw(words),
    }
    span = {
        "traceId": draw(st.integers(1, 2**64).map("{:032x}".format)),
        "spanId": draw(st.integers(1, 2**60).map("{:016x}".format)),
        "name": "chat m",
        "startTimeUnixNano": "1700000000000000000",
        "endTimeUnixNano": "1700000001500000000",
        "attributes": [{"key": key, "value": otlp(value)} for key, value in attributes.items()],
        "droppedAttributesCount": draw(st.integers(0, 3)),
    }
    resource = {"attributes": [{"key": "service.name", "value": otlp(draw(words))}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "s"}, "spans": [span]}]}]}


numbers = st.integers(0, 10**6)
ROWS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "trl": trl_rows(),
    "trl-unpaired": with_extras(
        {
            "prompt": words | st.lists(turn("user"), min_size=1, max_size=2),
            "completion": words | st.lists(turn("assistant"), min_size=1, max_size=1),
            "label": st.booleans(),
        }
    ),
    "rewardbench": with_extras(
        {
            "id": numbers, "prompt": words, "chosen": words, "rejected": words, "subset": words,
            "chosen_model": words, "rejected_model": st.none() | words,
        }
    ),
    "alpacaeval": with_extras(
        {"instruction": words, "output": st.just("") | words, "generator": words, "dataset": words}
    ),
    "alpacaeval-annotations": with_extras(
        {
            "instruction": words, "output_1": words, "output_2": words, "generator_1": words, "generator_2": words,
            "annotator": words, "preference": st.none() | st.just(0) | st.floats(1, 2) | st.sampled_from([1, 1.5, 2]),
        }
    ),
    "otel": otel_rows(),
    "langfuse": with_extras(
        {
            "id": numbers.map(str), "input": words | st.lists(turn("user"), min_size=1, max_size=2),
            "output": words | turn("assistant"), "timestamp": words, "tags": st.lists(words, max_size=2),
            "scores": st.lists(st.fixed_dictionaries({"name": words, "value": st.floats(0, 1)}), max_size=2),
        }
    ),
    "langsmith": with_extras(
        {
            "id": numbers.map(str), "trace_id": words, "start_time": words,
            "inputs": st.fixed_dictionaries({"question": words})
            | st.fixed_dictionaries({"messages": st.lists(turn("human"), min_size=1, max_size=2)}),
            "outputs": st.fixed_dictionaries({"output": words}),
        }
    ),
    "phoenix": with_extras(
        {
            "context": st.fixed_dictionaries({"trace_id": words, "span_id": numbers.map(str)}),
            "attributes": st.fixed_dictionaries(
                {
                    "llm": st.fixed_dictionaries(
                        {
                            "input_messages": st.lists(
                                st.fixed_dictionaries({"message.role": st.just("user"), "message.content": words}),
                                min_size=1, max_size=2,
                            ),
                            "model_name": words,
                        }
                    ),
                    "output.value": words,
                }
            ),
        }
    ),
    "healthbench": with_extras(
        {
            "prompt_id": numbers.map(str), "prompt": st.lists(turn("user"), min_size=1, max_size=2),
            "rubrics": st.lists(
                st.fixed_dictionaries(
                    {"criterion": words, "points": st.integers(1, 9), "tags": st.lists(words, max_size=1)}
                ),
                min_size=1, max_size=3,
            ),
            "example_tags": st.lists(words, max_size=2),
        }
    ),
}  # fmt: skip
"""Rows as the tools write them. ``None`` for a known key means that the key stands there with null."""


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("name", sorted(ROWS))
def test_import_export_import_is_equal(name: str) -> None:
    """Any row of a format, with keys that nobody knows, comes back the same from one trip, and the file does, too."""

    @settings(max_examples=60)
    @given(st.lists(ROWS[name], min_size=1, max_size=3))
    def round_trip(rows: list[dict[str, Any]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            (place / "theirs.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
            first = ingest(place / "theirs.jsonl", name, place / "ours.jsonl", skip_bad=True)
            assert first.read == len(rows)
            assert set(first.problems) <= {"duplicate"}
            out = export(place / "ours.jsonl", name, place / "back.jsonl")
            assert (out.rows, out.problems) == (first.rows, {})
            second = ingest(place / "back.jsonl", name, place / "again.jsonl")
            assert second.rows == first.rows
            assert (place / "again.jsonl").read_bytes() == (place / "ours.jsonl").read_bytes() or lines_of(
                place / "again.jsonl"
            ) == lines_of(place / "ours.jsonl")
            if not first.problems and name != "rewardbench":
                assert lines_of(place / "back.jsonl") == rows

    round_trip()


def test_every_format_that_goes_both_ways_is_tested_here() -> None:
    """A format that is added to the table without a round trip shows here."""
    both = {name for name, entry in FORMATS.items() if entry.read and entry.write}
    special = {"arena-hard", "mt-bench", "promptfoo", "promptfoo-results", "otel-evaluations", "scores",
               "label-studio", "argilla"}  # fmt: skip
    assert both == {*ROWS, *special}


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"healthbench"}))
def test_what_a_format_has_no_place_for_travels_in_it(name: str, tmp_path: Path) -> None:
    """Rows of ours that came from nowhere keep every field over a trip through any format of their kind."""
    entry = FORMATS[name]
    common = {
        "id": "mine-1",
        "category": "support",
        "metadata": {"intent": "refund", "n": 3},
        "tags": ["a"],
        "mine": [1],
    }
    rows: dict[str, dict[str, Any]] = {
        "preference": {
            **common,
            "prompt": "q",
            "chosen": "a",
            "rejected": "b",
            "source": "judge",
            "p": 0.8,
            "why": "w",
        },
        "answer": {**common, "prompt": "q", "answer": {"text": "a", "model": "m", "latency_ms": 5.0}, "good": True},
        "pair": {
            **common,
            "prompt": "q",
            "candidate": {"text": "a", "model": "m"},
            "baseline": {"text": "b"},
            "label": "loss",
        },
        "trace": {**common, "prompt": "q", "trace_id": "t", "answer": {"text": "a", "model": "m", "cost": 0.1}},
    }
    row = rows[entry.kind]
    export([row], name, tmp_path / "out.jsonl")
    ingest(tmp_path / "out.jsonl", name, tmp_path / "in.jsonl")
    (back,) = lines_of(tmp_path / "in.jsonl")
    back.pop("foreign", None)
    if name == "otel":  # a span knows turns only
        back["prompt"] = back.pop("messages")[0]["content"]
    assert back == row


def test_a_changed_row_leaves_with_the_change(tmp_path: Path) -> None:
    """A trace that was redacted after import goes out redacted: the kept original does not undo it."""
    raw = {"id": "1", "input": {"messages": [{"role": "user", "content": "call 555-1234"}]}, "output": "done", "k": 1}
    (tmp_path / "t.jsonl").write_bytes(orjson.dumps(raw))
    ingest(tmp_path / "t.jsonl", "langfuse", tmp_path / "ours.jsonl")
    (row,) = lines_of(tmp_path / "ours.jsonl")
    row["messages"][0]["content"] = "call [phone]"
    export([row], "langfuse", tmp_path / "back.jsonl")
    text = (tmp_path / "back.jsonl").read_text()
    assert "[phone]" in text
    assert "555-1234" not in text
    assert lines_of(tmp_path / "back.jsonl")[0]["k"] == 1


def arena(folder: Path) -> Path:
    """A small folder of Arena-Hard in the newer shape, one question without an answer."""
    write = lambda path, rows: (
        path.parent.mkdir(parents=True, exist_ok=True),
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows)),
    )
    write(
        folder / "question.jsonl",
        [{"uid": f"q{n}", "category": "hard", "cluster": "c", "prompt": f"ask {n}"} for n in range(3)],
    )
    for model in ("new", "old"):
        rows = [
            {"uid": f"q{n}", "ans_id": f"{model}{n}", "model": model, "tstamp": 1.5,
             "messages": [{"role": "user", "content": f"ask {n}"},
                          {"role": "assistant", "content": {"answer": f"{model} {n}"}}]}
            for n in range(3)
        ]  # fmt: skip
        write(folder / "model_answer" / f"{model}.jsonl", rows)
    games = [
        [{"score": "B>>A"}, {"score": "A>B"}],
        [{"score": "A=B"}, {"score": None}],
        [{"score": "A>B"}, {"score": "A>B"}],
    ]
    rows = [{"uid": f"q{n}", "judge": "j", "model": "new", "baseline": "old", "games": games[n]} for n in range(3)]
    write(folder / "model_judgment" / "j" / "new.jsonl", rows)
    return folder


def test_arena_hard_reads_both_games_from_the_candidate_s_side(tmp_path: Path) -> None:
    """Game one has the baseline as A, game two the candidate; an unreadable game counts nothing; the folder returns."""
    moved = ingest(arena(tmp_path / "bench"), "arena-hard", tmp_path / "pairs.jsonl")
    assert moved.rows == 3
    rows = lines_of(tmp_path / "pairs.jsonl")
    assert [row["judged"][0]["preference"] for row in rows] == [1.0, 0.5, 0.5]
    assert rows[0]["candidate"] == {"text": "new 0", "model": "new"}
    export(tmp_path / "pairs.jsonl", "arena-hard", tmp_path / "back")
    for name in ("question.jsonl", "model_answer/new.jsonl", "model_answer/old.jsonl", "model_judgment/j/new.jsonl"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "bench" / name).read_bytes()
    with pytest.raises(InputError, match="there is something here already"):
        export(tmp_path / "pairs.jsonl", "arena-hard", tmp_path / "back")
    assert open_evalset(tmp_path / "pairs.jsonl").rows == 3


def test_arena_hard_names_what_has_no_partner(tmp_path: Path) -> None:
    """A question without an answer and an answer without a question are refused with their lines."""
    bench = arena(tmp_path / "bench")
    answers = lines_of(bench / "model_answer/new.jsonl")
    answers[1]["uid"] = "q9"
    (bench / "model_answer/new.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in answers))
    with pytest.raises(InputError, match=r"2 rows cannot be used \(2 unmatched\), 2 can") as error:
        ingest(bench, "arena-hard", tmp_path / "pairs.jsonl")
    assert "question.jsonl:2: id 'q1' has no answer of new" in str(error.value)
    assert "id 'q9' is not in question.jsonl" in str(error.value)
    assert not (tmp_path / "pairs.jsonl").exists()
    (bench / "model_answer/third.jsonl").write_bytes((bench / "model_answer/old.jsonl").read_bytes())
    with pytest.raises(InputError, match="which two"):
        ingest(bench, "arena-hard", tmp_path / "pairs.jsonl")


def test_mt_bench_turns_and_winners(tmp_path: Path) -> None:
    """Two turns stand in one text, winners by model name, and the folder comes back as it was."""
    bench = tmp_path / "bench"
    (bench / "model_answer").mkdir(parents=True)
    (bench / "model_judgment").mkdir()
    (bench / "question.jsonl").write_bytes(
        orjson.dumps({"question_id": 81, "category": "writing", "turns": ["a?", "b?"]}) + b"\n"
    )
    for model in ("new", "old"):
        row = {
            "question_id": 81,
            "answer_id": model,
            "model_id": model,
            "choices": [{"index": 0, "turns": ["x", model]}],
        }
        (bench / "model_answer" / f"{model}.jsonl").write_bytes(orjson.dumps(row) + b"\n")
    judged = {
        "question_id": 81,
        "model_1": "new",
        "model_2": "old",
        "g1_winner": "model_1",
        "g2_winner": "tie",
        "turn": 1,
    }
    (bench / "model_judgment" / "gpt_pair.jsonl").write_bytes(orjson.dumps(judged) + b"\n")
    options = Options(candidate="new", baseline="old")
    ingest(bench, "mt-bench", tmp_path / "pairs.jsonl", options=options)
    (row,) = lines_of(tmp_path / "pairs.jsonl")
    assert row["prompt"] == "[turn 1]\na?\n\n[turn 2]\nb?"
    assert row["judged"][0]["preference"] == 0.75
    export(tmp_path / "pairs.jsonl", "mt-bench", tmp_path / "back")
    ingest(tmp_path / "back", "mt-bench", tmp_path / "again.jsonl", options=options)
    assert lines_of(tmp_path / "again.jsonl") == [row]


SUITE = """
description: kept
prompts: ['Answer {{ question }}', 'Briefly: {{question}}']
providers: [openai:x]
defaultTest: {assert: [{type: llm-rubric, value: is kind}]}
tests:
  - vars: {question: 'why?', extra: 1}
    assert: [{type: contains, value: because}]
  - vars: {question: 'who?'}
"""


def test_promptfoo_suites_are_filled_and_come_back(tmp_path: Path) -> None:
    """Every prompt with every test is a task with the default's assertions; the suite comes back equal."""
    (tmp_path / "suite.yaml").write_text(SUITE)
    ingest(tmp_path / "suite.yaml", "promptfoo", tmp_path / "tasks.jsonl")
    rows = lines_of(tmp_path / "tasks.jsonl")
    assert [row["prompt"] for row in rows] == ["Answer why?", "Briefly: why?", "Answer who?", "Briefly: who?"]
    assert [check["type"] for check in rows[0]["assert"]] == ["llm-rubric", "contains"]
    export(tmp_path / "tasks.jsonl", "promptfoo", tmp_path / "back.yaml")
    assert yaml.safe_load((tmp_path / "back.yaml").read_text()) == yaml.safe_load(SUITE)


@pytest.mark.parametrize(
    ("suite", "says"),
    [
        ("prompts: ['{{ q | upper }}']\ntests: [{vars: {q: a}}]", "the template computes"),
        ("prompts: ['{{ q }}']\ntests: [{vars: {x: a}}]", "no variable 'q'"),
        ("tests: [{vars: {x: a}}]", "name the variable that holds the prompt with --map"),
        ("prompts: [a]\ntests: file://x.csv", "'tests' is str"),
        ("prompts: [a\n", "not YAML"),
        ("prompts: [file://p.txt]\ntests: [{vars: {x: a}}]", "stands in a file of its own"),
    ],
)
def test_a_suite_that_would_have_to_be_guessed_at_is_refused(suite: str, says: str, tmp_path: Path) -> None:
    """A template with logic, a variable that is not there, files beside it: named, not guessed."""
    (tmp_path / "suite.yaml").write_text(suite)
    with pytest.raises(InputError, match=says):
        ingest(tmp_path / "suite.yaml", "promptfoo", tmp_path / "tasks.jsonl")


def test_promptfoo_results_come_back_with_their_document(tmp_path: Path) -> None:
    """Rows carry answer, grade and cost; what stands around them is kept; an errored row is reported."""
    result = {
        "testIdx": 0, "promptIdx": 0, "prompt": {"raw": "why?", "label": "l"}, "provider": {"id": "openai:x"},
        "response": {"output": "so", "tokenUsage": {"completion": 2}, "finishReason": "length"},
        "success": False, "score": 0.25, "latencyMs": 12,
        "cost": 0.001, "gradingResult": {"pass": False, "reason": "rude"}, "vars": {"q": "why?"}, "namedScores": {},
    }  # fmt: skip
    failed = {**result, "testIdx": 1, "response": {}, "error": "API error: 500"}
    stats = {"successes": 0, "failures": 1, "errors": 1}
    document = {
        "evalId": "e",
        "results": {"version": 3, "timestamp": "t", "results": [result, failed], "stats": stats},
        "config": {"x": 1},
    }
    (tmp_path / "r.json").write_bytes(orjson.dumps(document))
    with pytest.raises(InputError, match="API error: 500"):
        ingest(tmp_path / "r.json", "promptfoo-results", tmp_path / "a.jsonl")
    moved = ingest(tmp_path / "r.json", "promptfoo-results", tmp_path / "a.jsonl", skip_bad=True)
    assert (moved.rows, moved.problems) == (1, {"failed": 1})
    (row,) = lines_of(tmp_path / "a.jsonl")
    assert row["graded"] == {"passed": False, "score": 0.25, "reason": "rude"}
    assert row["answer"] == {
        "text": "so", "model": "openai:x", "latency_ms": 12, "cost": 0.001, "tokens": 2, "finish": "length",
    }  # fmt: skip
    export(tmp_path / "a.jsonl", "promptfoo-results", tmp_path / "back.json")
    back = orjson.loads((tmp_path / "back.json").read_bytes())
    document["results"]["results"] = [result]  # type: ignore[index]
    assert back == document


def test_spans_that_are_no_call_of_a_model_are_counted_and_refuse_nothing(tmp_path: Path) -> None:
    """A database span beside a chat span is reported as other; a chat without recorded content is missing."""
    spans = [
        {"traceId": "t", "spanId": "s1", "name": "chat", "attributes": [
            {"key": "gen_ai.input.messages", "value": otlp(
                '[{"role":"user","parts":[{"type":"text","content":"q"}]}]')},
            {"key": "gen_ai.output.messages", "value": otlp(
                '[{"role":"assistant","parts":[{"type":"tool_call","id":"1","name":"f","arguments":{"x":1}}]}]')}],
         "events": [{"name": "gen_ai.evaluation.result", "attributes": [
             {"key": "gen_ai.evaluation.name", "value": otlp("thumbs")},
             {"key": "gen_ai.evaluation.score.value", "value": {"doubleValue": 0.0}}]}]},
        {"traceId": "t", "spanId": "s2", "name": "SELECT"},
    ]  # fmt: skip
    body = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
    (tmp_path / "t.json").write_bytes(orjson.dumps(body))
    moved = ingest(tmp_path / "t.json", "otel", tmp_path / "ours.jsonl")
    assert (moved.rows, moved.problems) == (1, {"other": 1})
    (row,) = lines_of(tmp_path / "ours.jsonl")
    assert row["answer"]["tool_calls"] == [{"id": "1", "name": "f", "arguments": {"x": 1}}]
    assert row["feedback"] == [{"name": "thumbs", "value": 0.0}]
    spans[1]["attributes"] = [{"key": "gen_ai.operation.name", "value": otlp("chat")}]
    (tmp_path / "t.json").write_bytes(orjson.dumps(body))
    with pytest.raises(InputError, match="span SELECT: content was not recorded"):
        ingest(tmp_path / "t.json", "otel", tmp_path / "ours.jsonl")


EVALUATIONS = [
    {
        "id": "r:1",
        "name": "pairwise.h@1",
        "value": 0.75,
        "label": "win",
        "explanation": "=better",
        "target": {"trace_id": "t", "span_id": "s"},
    },
    {"id": "r:2", "name": "pairwise.h@1", "label": "invalid: conflict", "target": {"response_id": "x"}},
]


@pytest.mark.parametrize(("name", "file"), [("otel-evaluations", "e.jsonl"), ("scores", "e.csv")])
def test_evaluations_leave_and_return(name: str, file: str, tmp_path: Path) -> None:
    """Scores go out as events or CSV and come back equal; an invalid one has no value; CSV holds no formula."""
    export(EVALUATIONS, name, tmp_path / file)
    ingest(tmp_path / file, name, tmp_path / "back.jsonl")
    assert lines_of(tmp_path / "back.jsonl") == EVALUATIONS
    assert ",=better" not in (tmp_path / file).read_text()


PAIRS = [
    {"id": f"gpt-x:{n}", "prompt": f"q{n}", "candidate": {"text": f"new {n}", "model": "secret-new"},
     "baseline": {"text": f"old {n}", "model": "secret-old"}, "context": ["src"]}
    for n in range(40)
]  # fmt: skip


@pytest.mark.parametrize("name", ["label-studio", "argilla"])
def test_labelling_tasks_are_blind_and_labels_find_their_way_back(name: str, tmp_path: Path) -> None:
    """Tasks name no model and no pair, sides are shuffled; a label comes back from the candidate's side."""
    path = tmp_path / "tasks.json"
    export(PAIRS, name, path)
    text = path.read_text()
    assert "secret" not in text
    assert "gpt-x" not in text
    tasks = orjson.loads(text)
    key = {row["task"]: row for row in lines_of(key_path(path))}
    firsts = [row["shown_first"] for row in key.values()]
    assert 10 <= firsts.count("candidate") <= 30
    for number, task in enumerate(tasks):
        shown = task.get("data") or task["fields"]
        choice = "tie" if number == 0 else "first" if shown["first"].startswith("new") else "second"
        if name == "label-studio":
            result = [{"value": {"choices": [choice]}}, {"value": {"text": ["because"]}}]
            task["annotations"] = [
                {"completed_by": {"email": "ada"}, "result": result, "created_at": "2026-01-01T00:00:00Z"}
            ]
        else:
            task["responses"] = {"preference": [{"value": choice, "user_id": "ada"}]}
    path.write_bytes(orjson.dumps(tasks[:-1]))
    with pytest.raises(InputError, match="--key FILE is needed"):
        ingest(path, name, tmp_path / "labels.jsonl")
    moved = ingest(path, name, tmp_path / "labels.jsonl", options=Options(key=key_path(path)))
    assert moved.rows == 39
    gold = GoldSet.read(tmp_path / "labels.jsonl")
    majority = {item.pair_id: item.majority for item in gold.items}
    assert majority["gpt-x:0"] == "tie"
    assert {majority[f"gpt-x:{n}"] for n in range(1, 39)} == {"win"}
    assert gold.items[1].candidate == "secret-new"
    shown = tasks[3].get("data") or tasks[3]["fields"]
    shown["first"] = "edited"
    path.write_bytes(orjson.dumps(tasks))
    with pytest.raises(InputError, match="shows other texts than were written"):
        ingest(path, name, tmp_path / "labels.jsonl", options=Options(key=key_path(path)))


def test_inspect_logs_are_read(tmp_path: Path) -> None:
    """Samples of both kinds of log with their scores; epochs keep apart; an error is reported."""
    output = {
        "model": "m",
        "choices": [{"message": {"role": "assistant", "content": [{"type": "text", "text": "4"}]}}],
        "time": 1.5,
    }
    output["choices"][0]["stop_reason"] = "max_tokens"  # type: ignore[index]
    samples = [
        {
            "id": 1,
            "epoch": 1,
            "input": "2+2?",
            "target": "4",
            "output": output,
            "scores": {"match": {"value": "C"}},
            "uuid": "u",
        },
        {"id": 1, "epoch": 2, "input": [{"role": "user", "content": "2+2?"}], "target": ["4"], "output": output},
    ]
    (tmp_path / "log.json").write_bytes(orjson.dumps({"version": 2, "eval": {"task": "t"}, "samples": samples}))
    with zipfile.ZipFile(tmp_path / "log.eval", "w") as archive:
        archive.writestr("header.json", "{}")
        for sample in samples:
            archive.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", orjson.dumps(sample))
    for name in ("log.json", "log.eval"):
        assert ingest(tmp_path / name, "inspect", tmp_path / "a.jsonl").rows == 2
        first, second = lines_of(tmp_path / "a.jsonl")
        assert (first["id"], second["id"]) == ("1", "1/2")
        assert first["answer"] == {"text": "4", "model": "m", "latency_ms": 1500.0, "finish": "max_tokens"}
        assert first["scores"] == {"match": {"value": "C"}}
    samples[0]["error"] = {"message": "boom"}
    (tmp_path / "log.json").write_bytes(orjson.dumps({"eval": {}, "samples": samples}))
    with pytest.raises(InputError, match="boom"):
        ingest(tmp_path / "log.json", "inspect", tmp_path / "a.jsonl")
    (tmp_path / "cut.eval").write_bytes((tmp_path / "log.eval").read_bytes()[:200])
    with pytest.raises(InputError, match=r"not a whole \.eval file"):
        ingest(tmp_path / "cut.eval", "inspect", tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("name", "line", "kind", "says"),
    [
        ("trl", '{"prompt":"q","chosen":"a","rejected":"a"}', "degenerate", "equals 'rejected'"),
        ("trl", '{"prompt":"q","chosen":"","rejected":"a"}', "degenerate", "'chosen' is empty"),
        ("trl", '{"prompt":"q","chosen":"a"}', "missing", "no 'rejected'"),
        ("trl", '{"chosen":"abc","rejected":"xyz"}', "missing", "do not begin alike"),
        ("trl", '{"prompt":"q","chosen":"\\ud800","rejected":"a"}', "malformed", "surrogate"),
        ("trl", '{"prompt":"q","chosen":"a","rejec', "malformed", "not JSON"),
        ("trl", '{"prompt":"q","chosen":["a"],"rejected":"b"}', "malformed", "neither a text nor a list"),
        ("trl-unpaired", '{"prompt":"q","completion":"a","label":"yes"}', "malformed", "use true or false"),
        ("alpacaeval-annotations", '{"instruction":"i","output_1":"a","output_2":"b","preference":7}', "malformed",
         "from 1 to 2"),
        ("alpacaeval", '{"instruction":"i","output":5}', "malformed", "'output' is int, not text"),
        ("healthbench", '{"prompt":[{"role":"user","content":"q"}],"rubrics":[{"criterion":"c","points":-1}]}',
         "malformed", "divide by nothing"),
        ("langfuse", '{"id":"1","output":"x"}', "missing", "no input"),
    ],
)  # fmt: skip
def test_bad_rows_are_named_and_counted(name: str, line: str, kind: str, says: str, tmp_path: Path) -> None:
    """A bad row refuses the file with its line and reason, and nothing is written; alone it is no file at all."""
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text("\n" + line)
    with pytest.raises(InputError, match=f"1 {kind}") as error:
        ingest(path, name, out)
    assert says in str(error.value)
    assert "in.jsonl:2: " in str(error.value)
    with pytest.raises(InputError, match="no row that can be used"):
        ingest(path, name, out, skip_bad=True)
    assert list(tmp_path.iterdir()) == [path]


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab[{", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=12,
)


@pytest.mark.parametrize("name", sorted(name for name, entry in FORMATS.items() if entry.read and not entry.folder))
def test_no_shape_of_a_row_ends_the_import(name: str) -> None:
    """Objects of any shape under the names that a format knows: a row, or a named problem, never another error."""

    @settings(max_examples=40)
    @given(st.lists(st.dictionaries(st.sampled_from(NAMES), anything, max_size=6), min_size=1, max_size=3))
    def survives(rows: list[dict[str, Any]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            whole = name in ("promptfoo", "promptfoo-results", "inspect")
            file = place / ("in.json" if whole else "in.jsonl")
            body = orjson.dumps({**rows[0], "eval": {}, "samples": rows, "prompts": ["a"], "tests": rows})
            listed = {"results": {"version": 3, "results": rows}}
            body = orjson.dumps(listed) if name == "promptfoo-results" else body
            file.write_bytes(body if whole else b"\n".join(map(orjson.dumps, rows)))
            (place / "key.jsonl").write_bytes(b'{"task": "a", "pair_id": "p", "texts": "", "shown_first": "candidate"}')
            try:
                moved = ingest(file, name, place / "out.jsonl", options=Options(key=place / "key.jsonl"), skip_bad=True)
            except InputError:
                return
            assert moved.rows > 0

    survives()


@pytest.mark.parametrize("name", [name for name, entry in FORMATS.items() if entry.write is not None])
def test_no_shape_of_a_row_ends_the_export(name: str, tmp_path: Path) -> None:
    """Whatever a row of ours holds, a format writes it, leaves it out and counts it, or refuses it in one sentence."""
    odd: list[Any] = ["", 3, None, [], {}, ["x"], {"text": 3}, {"a": [1]}, [{"role": "user"}], "text"]
    fields = ("id", "prompt", "messages", "candidate", "baseline", "label", "answer", "judged", "target", "value",
              "foreign", "criteria", "context", "metadata", "tools", "chosen")  # fmt: skip
    whole = {"id": "a", "prompt": "p", "candidate": "x", "baseline": "y", "label": "win"}
    kinds: list[dict[str, Any]] = [
        whole,
        {"id": "a", "prompt": "p", "answer": {"text": "x"}, "trace_id": "t"},
        {"id": "a", "prompt": "p", "criteria": [{"criterion": "c", "points": 1}]},
        {"id": "a", "name": "n", "value": 0.5, "target": {}},
        {"id": "a", "prompt": "p", "chosen": "x", "rejected": "y"},
    ]
    for number, (row, field) in enumerate((row, field) for row in kinds for field in fields):
        source = tmp_path / f"{number}.jsonl"
        rows = [{**row, "id": str(k), field: value} for k, value in enumerate(odd)]
        source.write_bytes(b"\n".join(map(orjson.dumps, rows)))
        try:
            moved = export(source, name, tmp_path / f"out-{number}", skip_bad=True)
        except InputError:
            continue
        assert moved.read == len(rows)


@pytest.mark.parametrize("name", ["rewardbench", "trl"])
def test_a_pair_without_a_better_answer_is_left_out_and_counted(name: str, tmp_path: Path) -> None:
    """Formats that need a better answer refuse ties and unlabelled pairs by row; --skip-bad leaves these out."""
    source, out = tmp_path / "pairs.jsonl", tmp_path / "out.jsonl"
    labels = ["win", "tie", None, "loss"]
    rows = [{"id": str(k), "prompt": "p", "candidate": "x", "baseline": "y", "label": label}
            for k, label in enumerate(labels)]  # fmt: skip
    source.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    with pytest.raises(InputError, match=r"2 rows cannot be written \(2 undecided\), 2 can"):
        export(source, name, out)
    assert not out.exists()
    moved = export(source, name, out, skip_bad=True)
    assert (moved.rows, moved.problems) == (2, {"undecided": 2})
    source.write_bytes(orjson.dumps(rows[1]))
    for skip_bad in (False, True):
        with pytest.raises(InputError, match="judge label RUN --to labels"):
            export(source, name, out, skip_bad=skip_bad)


def test_a_mapping_must_name_fields_and_places_that_exist(tmp_path: Path) -> None:
    """An unknown field, a path that no row has, a format without a mapping: each is refused by name."""
    (tmp_path / "t.jsonl").write_bytes(orjson.dumps({"id": "1", "deep": [{"q": "why?"}], "output": "so"}))
    out = tmp_path / "o.jsonl"
    nowhere = Options(mapping={"input": "deep.0.q", "answer.model": "nowhere"})
    with pytest.raises(InputError, match=r"--map prompt=\.\.\.: unknown field; the fields are input, output, id"):
        ingest(tmp_path / "t.jsonl", "langfuse", out, options=Options(mapping={"prompt": "deep"}))
    with pytest.raises(InputError, match="no row has a value there"):
        ingest(tmp_path / "t.jsonl", "langfuse", out, options=nowhere)
    with pytest.raises(InputError, match="has fixed fields"):
        ingest(tmp_path / "t.jsonl", "trl", out, options=Options(mapping={"prompt": "x"}))
    ingest(tmp_path / "t.jsonl", "langfuse", out, options=Options(mapping={"input": "deep.0.q"}))
    assert lines_of(out)[0]["prompt"] == "why?"


def test_a_pair_becomes_a_preference_only_where_a_label_says_so(tmp_path: Path) -> None:
    """Labelled pairs leave as preferences; a tie and a pair without a label are counted, not turned into one."""
    rows = [
        {"id": "1", "prompt": "q", "candidate": {"text": "a"}, "baseline": {"text": "b"}, "label": "loss"},
        {"id": "2", "prompt": "q", "candidate": {"text": "a"}, "baseline": {"text": "b"}, "label": "tie"},
        {"id": "3", "prompt": "q", "candidate": {"text": "a"}, "baseline": {"text": "b"}},
    ]
    with pytest.raises(InputError, match="2 undecided"):
        export(rows, "trl", tmp_path / "out.jsonl")
    moved = export(rows, "trl", tmp_path / "out.jsonl", skip_bad=True)
    assert moved.problems == {"undecided": 2}
    (row,) = lines_of(tmp_path / "out.jsonl")
    assert (row["chosen"], row["rejected"]) == ("b", "a")


@pytest.mark.torch
@given(words, words, words)
def test_an_implicit_prompt_is_cut_where_trl_cuts_it(asked: str, one: str, other: str) -> None:
    """Prompt and answers are those of TRL's own function, for texts of which none begins the other."""
    trl = pytest.importorskip("trl.data_utils", reason="an oracle: pip install trl")
    chosen, rejected = f"{asked}: a {one}", f"{asked}: b {other}"
    theirs = trl.extract_prompt({"chosen": chosen, "rejected": rejected})
    ours = decode(TRL, {"chosen": chosen, "rejected": rejected})
    assert [ours[name] for name in ("prompt", "chosen", "rejected")] == [
        theirs[name] for name in ("prompt", "chosen", "rejected")
    ]


def test_what_leaves_can_be_read_by_the_datasets_library(tmp_path: Path) -> None:
    """Rows whose own fields differ in type from row to row load as one table: ours stand in one text column."""
    datasets = pytest.importorskip("datasets", reason="an oracle: pip install datasets")
    base = {"prompt": "q", "chosen": "a", "rejected": "b"}
    rows = [{**base, "id": "1", "metadata": {"n": 1}}, {**base, "id": "2", "metadata": {"n": ["x"]}, "p": 0.8}]
    export(rows, "trl", tmp_path / "out.jsonl")
    table = datasets.load_dataset(
        "json", data_files=str(tmp_path / "out.jsonl"), cache_dir=str(tmp_path), split="train"
    )
    assert table.column_names == ["prompt", "chosen", "rejected", "touchstone"]
    assert table["chosen"][:] == ["a", "a"]


def test_a_column_of_ours_that_somebody_changed_is_refused(tmp_path: Path) -> None:
    """What stands under our key and is not ours makes the row malformed."""
    lines = [{"prompt": "q", "chosen": "a", "rejected": "b", "touchstone": value} for value in ("{", "[]", 5)]
    (tmp_path / "in.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    with pytest.raises(InputError, match="3 malformed"):
        ingest(tmp_path / "in.jsonl", "trl", tmp_path / "out.jsonl")


def test_a_file_is_not_written_over_while_it_is_read(tmp_path: Path) -> None:
    """Export onto its own source is refused and the source stays."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(orjson.dumps({"id": "1", "prompt": "q", "chosen": "a", "rejected": "b"}))
    with pytest.raises(InputError, match="this is the file to read"):
        export(path, "trl", path)
    assert path.exists()


def test_a_failed_export_leaves_the_old_file(tmp_path: Path) -> None:
    """What stood there before a refused export stands there after it."""
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(InputError):
        export([{"nothing": 1}], "trl", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["arena-hard", "mt-bench", "trl", "label-studio"])
def test_an_export_never_touches_a_folder_that_is_there(name: str, tmp_path: Path) -> None:
    """A folder with something in it is refused as the place of an export, and everything in it stays."""
    place = tmp_path / "precious"
    (place / "inside").mkdir(parents=True)
    (place / "inside" / "work.txt").write_text("mine")
    for rows in (PAIRS, [{"nothing": 1}]):
        with pytest.raises(InputError, match=r"something here already|a folder; name the file"):
            export(rows, name, place)
    assert (place / "inside" / "work.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_failed_export_leaves_the_key_of_tasks_that_are_out(tmp_path: Path) -> None:
    """Tasks that were handed out can still be read after an export onto them that fails; nothing else is left."""
    path = tmp_path / "tasks.json"
    export(PAIRS, "label-studio", path, options=Options(seed=1))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(before) == {"tasks.json", "tasks.key.jsonl", "tasks.xml"}
    with pytest.raises(InputError, match="1 malformed"):
        export([*PAIRS[:3], {"nothing": 1}], "label-studio", path, options=Options(seed=2))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_judge_named_like_a_path_does_not_leave_the_folder(tmp_path: Path) -> None:
    """Judgements of a row that came from elsewhere are written inside the folder, whatever their judge is called."""
    foreign = {"question": {"uid": "1", "prompt": "q"}, "judgements": {"../../../out": {"uid": "1", "games": []}}}
    sides = {side: {"text": "a", "model": side} for side in ("candidate", "baseline")}
    raw = {side: {"uid": "1", "messages": []} for side in sides}
    row = {"id": "1", "prompt": "q", **sides, "foreign": {"format": "arena-hard", "fields": {**foreign, **raw}}}
    export([row], "arena-hard", tmp_path / "deep" / "bench")
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["bench"]
    assert len(list((tmp_path / "deep" / "bench" / "model_judgment").glob("*/candidate.jsonl"))) == 1


@pytest.mark.parametrize("name", [name for name, entry in FORMATS.items() if not entry.folder])
@pytest.mark.parametrize("text", ["null", "5", "true", '"x"', "[5]", "[[1]]", "[" * 9_999 + "]" * 9_999, "\0", "{"])
def test_a_file_that_is_something_else_is_one_clear_error(name: str, text: str, tmp_path: Path) -> None:
    """Whatever JSON a file holds instead of rows, an import says so as bad input and leaves nothing."""
    suffix = {"scores": ".csv", "inspect": ".json", "otel": ".json", "promptfoo": ".json"}.get(name, ".jsonl")
    (tmp_path / "in").with_suffix(suffix).write_text(text)
    (tmp_path / "key.jsonl").write_text('{"task": "1"}\n')
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError):
        ingest(before[0], name, tmp_path / "out.jsonl", options=Options(key=tmp_path / "key.jsonl"))
    assert sorted(tmp_path.iterdir()) == before


def test_an_import_onto_its_own_source_is_refused(tmp_path: Path) -> None:
    """A file is not replaced by what was read from it."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(orjson.dumps({"prompt": "q", "chosen": "a", "rejected": "b"}))
    before = path.read_bytes()
    with pytest.raises(InputError, match="this is the file to read"):
        ingest(path, "trl", path)
    assert path.read_bytes() == before


def test_the_command_line_moves_files_and_says_what_it_left(tmp_path: Path) -> None:
    """ingest and export from a shell: paths and JSON on stdout, counts on stderr, exit 2 for an unknown format."""
    run = CliRunner()
    (tmp_path / "p.jsonl").write_text('{"prompt":"q","chosen":"a","rejected":"b"}\n{"prompt":"q"}\n')
    done = run.invoke(
        root, ["ingest", str(tmp_path / "p.jsonl"), "--from", "trl", "-o", str(tmp_path / "o.jsonl"), "--skip-bad"]
    )
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'o.jsonl'}\n"
    assert "trl: 1 row of kind preference, of 2 read" in done.stderr
    assert "1 missing" in done.stderr
    done = run.invoke(
        root, ["export", str(tmp_path / "o.jsonl"), "--to", "trl", "-o", str(tmp_path / "b.jsonl"), "--json"]
    )
    assert orjson.loads(done.stdout)["rows"] == 1
    done = run.invoke(root, ["ingest", "x", "--from", "trll", "-o", "y.jsonl"])
    assert isinstance(done.exception, InputError)
    assert "did you mean 'trl'" in str(done.exception)
    listed = run.invoke(root, ["ingest", "--formats"]).stdout
    assert all(name in listed for name in FORMATS)
