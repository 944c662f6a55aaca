"""Checks against published cases and labels: JSON parsing, JSON Schema, tool calls, IFEval, XSTest, hh-rlhf."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from calibration.coefficients import Resampling, cohen_kappa
from judge.checks.instructions import Instructions, follows
from judge.checks.refusal import classify
from judge.checks.strictjson import NotJson, parse
from judge.checks.structure import Schema
from judge.checks.tools import ExpectedCalls, ToolCalls
from judge.types import Answer, Item

Gold = Callable[[str], Path]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
VOCABULARY = "https://json-schema.org/draft/2020-12/vocab"
HOST = "http://localhost:1234/draft2020-12/"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_every_decided_parsing_case_is_decided_so(gold: Gold) -> None:
    """Each of the 283 texts that JSONTestSuite accepts or rejects gets that answer; NaN and Infinity are rejected."""
    wrong, decided = [], 0
    for row in rows(gold("json_suite") / "parsing.jsonl"):
        large = b"[" * 100_000 if "arrays" in row["id"] else b'[{"":' * 50_000
        data = base64.b64decode(row["b64"]) if row["b64"] is not None else large
        try:
            parse(data, unique=False)
            accepted = True
        except NotJson:
            accepted = False
        if row["expect"] != "either":
            decided += 1
            wrong += [row["id"]] if accepted != (row["expect"] == "accept") else []
    assert decided == 283
    assert wrong == []


def test_only_names_given_twice_part_the_check_from_the_grammar(gold: Gold) -> None:
    """With unique names asked for, exactly the accepted texts with a name given twice are refused on top."""
    refused = set()
    for row in rows(gold("json_suite") / "parsing.jsonl"):
        if row["expect"] == "accept":
            try:
                parse(base64.b64decode(row["b64"]))
            except NotJson as fault:
                refused.add((row["id"], "stands twice" in fault.reason))
    assert refused == {
        ("y_object_duplicated_key.json", True),
        ("y_object_duplicated_key_and_value.json", True),
    }


def meta(name: str, **vocabularies: bool) -> dict[str, Any]:
    uses = {"core": True, "applicator": True, **{key.replace("_", "-"): value for key, value in vocabularies.items()}}
    return {
        "$schema": DIALECT,
        "$id": f"{HOST}{name}.json",
        "$vocabulary": {f"{VOCABULARY}/{key}": value for key, value in uses.items()},
        "$dynamicAnchor": "meta",
        "allOf": [{"$ref": f"https://json-schema.org/draft/2020-12/meta/{part}"} for part in ("applicator", "core")],
    }


def documents() -> dict[str, Any]:
    """The documents that the official cases expect at http://localhost:1234, written anew from what the cases ask."""
    integer, string = {"$schema": DIALECT, "type": "integer"}, {"$schema": DIALECT, "type": "string"}
    held = {"bar": {"type": "string"}}
    found: dict[str, Any] = {
        "integer": integer,
        "baseUriChange/folderInteger": integer,
        "baseUriChangeFolder/folderInteger": integer,
        "baseUriChangeFolderInSubschema/folderInteger": integer,
        "nested/string": string,
        "nested/foo-ref-string": {"type": "object", "properties": {"foo": {"$ref": "string.json"}}},
        "subSchemas": {"$defs": {"integer": {"type": "integer"}, "refToInteger": {"$ref": "#/$defs/integer"}}},
        "locationIndependentIdentifier": {
            "$defs": {"refToInteger": {"$ref": "#foo"}, "A": {"$anchor": "foo", "type": "integer"}}
        },
        "name-defs": {"$defs": {"orNull": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}, "type": "string"},
        "ref-and-defs": {"$id": f"{HOST}ref-and-defs.json", "$defs": {"inner": {"properties": held}},
                         "$ref": "#/$defs/inner"},
        "different-id-ref-string": {"$id": "http://localhost:1234/real-id-ref-string.json", "$defs": held,
                                    "$ref": "#/$defs/bar"},
        "urn-ref-string": {"$id": "urn:uuid:feebdaed-ffff-0000-ffff-0000deadbeef", "$defs": held,
                           "$ref": "#/$defs/bar"},
        "nested-absolute-ref-to-string": {
            "$defs": {"bar": {"$id": "http://localhost:1234/the-nested-id.json", "type": "string"}},
            "$ref": "http://localhost:1234/the-nested-id.json",
        },
        "detached-ref": {"$id": f"{HOST}detached-ref.json", "$defs": {
            "foo": {"$ref": "#detached"}, "detached": {"$anchor": "detached", "type": "integer"}}},
        "detached-dynamicref": {"$id": f"{HOST}detached-dynamicref.json", "$defs": {
            "foo": {"$dynamicRef": "#detached"}, "detached": {"$dynamicAnchor": "detached", "type": "integer"}}},
        "tree": {"$id": f"{HOST}tree.json", "$dynamicAnchor": "node", "type": "object", "properties": {
            "data": True, "children": {"type": "array", "items": {"$dynamicRef": "#node"}}}},
        "extendible-dynamic-ref": {
            "$id": f"{HOST}extendible-dynamic-ref.json", "type": "object", "required": ["elements"],
            "properties": {"elements": {"type": "array", "items": {"$dynamicRef": "#elements"}}},
            "additionalProperties": False, "$defs": {"elements": {"$dynamicAnchor": "elements"}},
        },
        "metaschema-no-validation": meta("metaschema-no-validation"),
        "metaschema-optional-vocabulary": meta("metaschema-optional-vocabulary", validation=True),
        "format-assertion-false": meta("format-assertion-false", format_assertion=False),
        "format-assertion-true": meta("format-assertion-true", format_assertion=True),
    }  # fmt: skip
    older = "http://localhost:1234/draft2019-09/ignore-prefixItems.json"
    whole = {f"{HOST}{name}.json": {"$schema": DIALECT, **body} for name, body in found.items()}
    return {**whole, older: {"$schema": "https://json-schema.org/draft/2019-09/schema", "$id": older, "type": "array",
                             "prefixItems": [{"type": "string"}]}}  # fmt: skip


def test_every_json_schema_case_is_decided_so(gold: Gold) -> None:
    """All 2,225 cases of the official 2020-12 suite, its optional formats and ECMA patterns included."""
    given, cases = documents(), rows(gold("json_suite") / "schema_2020_12.jsonl")
    wrong = [
        (row["file"], row["test"])
        for row in cases
        if Schema(row["schema"], formats=row["file"].startswith("optional/format"), documents=given).valid(row["data"])
        != row["valid"]
    ]
    assert len(cases) == 2225
    assert wrong == []


def calls_from(truth: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The calls that a ground truth accepts: each needed argument with its first accepted value; OpenAI's form."""
    made = []
    for one in truth:
        ((name, arguments),) = one.items()
        chosen = {key: first(values) for key, values in arguments.items() if "" not in values}
        made.append({"type": "function", "function": {"name": name, "arguments": json.dumps(chosen)}})
    return tuple(made)


def first(values: Any) -> Any:
    value = next((one for one in values if one != ""), values[0]) if isinstance(values, list) else values
    if isinstance(value, dict):
        return {key: first(part) for key, part in value.items()}
    if isinstance(value, list):
        return [{key: first(part) for key, part in one.items()} if isinstance(one, dict) else one for one in value]
    return value


def test_accepted_calls_pass_and_mutated_ones_fail(gold: Gold) -> None:
    """On every function-calling case with a ground truth the accepted calls match it, and each mutation does not:
    another name, an argument missing or invented, a value changed, a call dropped or doubled.
    """
    tried = caught = 0
    for row in rows(gold("bfcl_slice") / "cases.jsonl"):
        if not row["ground_truth"]:
            continue
        item = Item(row["id"], metadata={"functions": row["functions"], "expected_calls": row["ground_truth"]})
        good = calls_from(row["ground_truth"])
        seen = ExpectedCalls().examine(item, Answer("", tool_calls=good))
        assert seen is not None and seen.passed, (row["id"], seen)
        for bad in mutations(good, row["ground_truth"]):
            seen = ExpectedCalls().examine(item, Answer("", tool_calls=bad))
            tried += 1
            caught += seen is not None and seen.passed is False
    assert tried > 1500
    assert caught == tried


def mutations(good: tuple[dict[str, Any], ...], truth: list[dict[str, Any]]) -> list[tuple[dict[str, Any], ...]]:
    """What a wrong answer could do to right calls."""
    call = good[0]["function"]
    arguments = json.loads(call["arguments"])
    required = [key for key, values in next(iter(truth[0].values())).items() if "" not in values]

    def put(**fields: Any) -> tuple[dict[str, Any], ...]:
        return ({"function": {**call, **fields}}, *good[1:])

    found = [put(name=call["name"] + "_x"), good[1:], (*good, good[0])]
    found.append(put(arguments=json.dumps({**arguments, "invented_argument": 1})))
    found.append(put(arguments='{"a": NaN}'))
    for key in required[:2]:
        found.append(put(arguments=json.dumps({name: value for name, value in arguments.items() if name != key})))
        found.append(put(arguments=json.dumps({**arguments, key: ["no such value"]})))
    return found


def test_accepted_calls_keep_to_the_schema(gold: Gold) -> None:
    """Of 360 ground truths three break their own function's schema, all slips of the published data: a required
    argument marked as optional, an expression as text where an array is wanted, a list where one word is.
    """
    broken, count = [], 0
    for row in rows(gold("bfcl_slice") / "cases.jsonl"):
        if row["ground_truth"]:
            count += 1
            item = Item(row["id"], metadata={"functions": row["functions"]})
            seen = ToolCalls().examine(item, Answer("", tool_calls=calls_from(row["ground_truth"])))
            assert seen is not None
            broken += [] if seen.passed else [(row["id"], seen.detail)]
    assert count == 360
    assert {name for name, _ in broken} == {"simple_python_17", "parallel_multiple_21", "live_simple_71-35-0"}, broken


def test_no_call_where_none_fits(gold: Gold) -> None:
    """All 120 irrelevance cases: an answer in words passes, any call fails."""
    cases = [row for row in rows(gold("bfcl_slice") / "cases.jsonl") if not row["expect_call"]]
    assert len(cases) == 120
    for row in cases:
        item = Item(row["id"], metadata={"functions": row["functions"]})
        check = ToolCalls(none=True)
        call = ({"name": row["functions"][0]["name"], "arguments": {}},)
        said, called = (check.examine(item, Answer("I cannot.", tool_calls=made)) for made in ((), call))
        assert said is not None and said.passed is True
        assert called is not None and called.passed is False


RANDOM_LETTER = "ifeval-1122"
"""Asks for the letter ``#``; the published program drew a random letter instead, so that its strict outcome (followed)
and its loose one (not followed) contradict each other: no program can reproduce both."""


@pytest.mark.skipif(find_spec("langdetect") is None, reason="langdetect is not installed: pip install langdetect")
def test_published_ifeval_outcomes_are_reproduced(gold: Gold) -> None:
    """Every one of GPT-4's recorded outcomes on IFEval's prompts, strict and loose, but for one that was random."""
    wrong, count = [], 0
    for row in rows(gold("ifeval") / "prompts.jsonl"):
        for place, (name, arguments) in enumerate(zip(row["instruction_id_list"], row["kwargs"], strict=True)):
            for loose, recorded in ((False, row["strict"][place]), (True, row["loose"][place])):
                count += 1
                found = follows(row["gpt4_response"], name, arguments, loose=loose, detector="langdetect")
                wrong += [] if found == recorded else [(row["id"], name, loose)]
    assert count == 2 * 832
    assert wrong == [(RANDOM_LETTER, "keywords:letter_frequency", True)]


@pytest.mark.skipif(find_spec("langdetect") is None, reason="langdetect is not installed: pip install langdetect")
def test_published_ifeval_accuracies(gold: Gold) -> None:
    """Through the check itself: 77.22% of prompts strict and 79.63% loose, of instructions 83.77% strict."""
    cases = rows(gold("ifeval") / "prompts.jsonl")
    seen: dict[bool, list[Any]] = {}
    for loose in (False, True):
        check = Instructions(loose=loose, detector="langdetect")
        seen[loose] = [
            check.examine(
                Item(row["prompt"], metadata={key: row[key] for key in ("instruction_id_list", "kwargs")}),
                Answer(row["gpt4_response"]),
            )
            for row in cases
        ]
    passed = {loose: sum(one.passed for one in found) for loose, found in seen.items()}
    assert round(100 * passed[False] / len(cases), 2) == 77.22
    # The prompt with the random letter is recorded as not followed in loose mode; it is followed.
    assert passed[True] - 1 <= round(0.7963 * len(cases)) <= passed[True]
    followed = sum(one.value * len(row["kwargs"]) for one, row in zip(seen[False], cases, strict=True))
    assert round(100 * followed / sum(len(row["kwargs"]) for row in cases), 2) == 83.77


def test_the_default_detector_errs_on_three_short_texts_only(gold: Gold) -> None:
    """With py3langid three of the 1,664 outcomes' instructions differ, each about a short text in English."""
    different = set()
    for row in rows(gold("ifeval") / "prompts.jsonl"):
        for place, (name, arguments) in enumerate(zip(row["instruction_id_list"], row["kwargs"], strict=True)):
            if name.startswith(("language:", "change_case:english")):
                found = follows(row["gpt4_response"], name, arguments)
                different |= {row["id"]} if found != row["strict"][place] else set()
    assert different == {"ifeval-1843", "ifeval-3456", "ifeval-3617"}


NAMES = {"full_compliance": "1", "partial_refusal": "3", "full_refusal": "2"}


def held_out(gold: Gold) -> list[dict[str, Any]]:
    """The half of XSTest's answers that the classifier was not fitted on."""
    every = rows(gold("xstest") / "items.jsonl")
    return [row for row in every if hashlib.sha256(row["prompt"].encode()).digest()[0] % 2]


def kappa(given: list[str], wanted: list[str], prompts: list[str]) -> Any:
    found = cohen_kappa(
        list(zip(given, wanted, strict=True)),
        sorted({*given, *wanted}),
        resampling=Resampling(clusters=prompts, rounds=400),
    )
    assert found is not None
    return found


def test_refusals_are_told_better_than_by_the_recorded_labels(gold: Gold) -> None:
    """On the held-out half of XSTest the kappa against the final labels, in three classes and in two, lies above that
    of the recorded string-match labels and of the recorded GPT-4 labels; and above .75 against each annotator.
    """
    items = held_out(gold)
    prompts = [row["prompt"] for row in items]
    final = [row["label"][0] for row in items]
    ours = [NAMES[classify(row["response"])[0].value] for row in items]
    recorded: dict[str, dict[str, str]] = {}
    for row in rows(gold("xstest") / "judgements.jsonl"):
        recorded.setdefault(row["judge"], {})[row["id"]] = row["verdict"][0]
    assert len(items) == 606
    for classes in (str, lambda label: "1" if label == "1" else "refusal"):
        truth = [classes(label) for label in final]
        mine = kappa([classes(label) for label in ours], truth, prompts)
        for judge in ("string-match", "gpt-4"):
            theirs = kappa([classes(recorded[judge][row["id"]]) for row in items], truth, prompts)
            assert mine.value > theirs.value + 0.02, (judge, mine, theirs)
    for number in (0, 1):
        assert kappa(ours, [row["annotators"][number][0] for row in items], prompts).value > 0.75
    agreed = sum(one == two for one, two in zip(ours, final, strict=True)) / len(items)
    assert agreed > 0.87


def test_refusal_on_real_dialogues_goes_with_what_people_prefer(gold: Gold) -> None:
    """On 600 harmlessness pairs of hh-rlhf: where exactly one answer is classed as full compliance (32 pairs: most of
    these short replies refuse nothing), people chose the other one, with an interval above one half.
    """
    from calibration.estimates import share

    chosen = []
    for row in rows(gold("hh_harmless") / "pairs.jsonl"):
        complies = [classify(row[side])[0].value == "full_compliance" for side in ("response_a", "response_b")]
        if complies[0] != complies[1]:
            refuser = "B" if complies[0] else "A"
            chosen.append(float(row["label"] == refuser))
    found = share(chosen)
    assert found is not None
    assert len(chosen) >= 30
    assert found.low > 0.5, found
