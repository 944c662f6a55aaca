"""Each shipped check: what passes, what fails and where, what is not judged, what is not concerned."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge.checks import instructions
from judge.checks.citations import Citations, closest
from judge.checks.language import Format, Language, language_of
from judge.checks.refusal import Compliance, Refusal, classify
from judge.checks.registry import CHECKS, Registry
from judge.checks.sentences import sentences
from judge.checks.strictjson import NotJson, depth, parse
from judge.checks.text import Regex
from judge.checks.tools import ToolCalls
from judge.errors import InputError
from judge.types import Answer, Item

SCHEMA = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}
TOOLS = (
    {"type": "function", "function": {"name": "find", "parameters": {
        "type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}}},
    {"name": "send", "input_schema": {"type": "object", "properties": {"to": {"type": "string", "format": "email"}}}},
)  # fmt: skip


def look(name: str, options: dict[str, Any], text: str = "", item: Item | None = None, **answer: Any) -> Any:
    return Registry().build(name, options).examine(item or Item("q"), Answer(text, **answer))


def call(name: str, arguments: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("name", "options", "text", "passed", "detail"),
    [
        ("not-empty", {}, "x", True, ""),
        ("not-empty", {}, " \n\t", False, "empty"),
        ("contains", {"texts": ["Paris"]}, "In paris.", True, ""),
        ("contains", {"texts": ["Paris"], "ignore_case": False}, "In paris.", False, "'Paris'"),
        ("contains", {"texts": ["a", "zz"]}, "a b", False, "without 'zz'"),
        ("contains", {"texts": ["a", "zz"], "any": True}, "a b", True, ""),
        ("not-contains", {"texts": ["art"]}, "start", False, "with 'art'"),
        ("not-contains", {"texts": ["art"], "words": True}, "start", True, ""),
        ("not-contains", {"texts": ["art"], "words": True}, "start, art!", False, "with 'art'"),
        ("regex", {"pattern": r"\d{3}"}, "no 123", True, ""),
        ("regex", {"pattern": r"\d{3}", "whole": True}, "no 123", False, "does not match"),
        ("regex", {"pattern": r"\d{3}", "absent": True}, "no 123", False, "matches"),
        ("regex", {"pattern": "^b$", "flags": "mi"}, "a\nB\nc", True, ""),
        ("json-parses", {}, ' {"a": [1, 2.5e3, null]} ', True, ""),
        ("json-parses", {}, '{"a": NaN}', False, "character 6"),
        ("json-parses", {}, '{"a": 1, "b": {"c": 1, "c": 2}}', False, "'c' stands twice"),
        ("json-parses", {}, "```json\n[1]\n```", False, "not JSON"),
        ("json-parses", {"fence": True}, "```json\n[1]\n```", True, ""),
        ("json-parses", {"fence": True}, "Here:\n```json\n[1]\n```", False, "not JSON"),
        ("json-parses", {"depth": 2}, "[[[]]]", False, "deeper than 2"),
        ("json-schema", {"schema": SCHEMA}, '{"id": 3}', True, ""),
        ("json-schema", {"schema": SCHEMA}, '{"id": "3"}', False, "/id"),
        ("json-schema", {"schema": SCHEMA}, "{}", False, "required"),
        ("json-schema", {"schema": False}, "{}", False, "False schema"),
        ("json-schema", {"schema": {"format": "date"}}, '"2026-02-30"', False, "date"),
        ("json-schema", {"schema": {"format": "date"}, "formats": False}, '"2026-02-30"', True, ""),
        ("language", {"language": "de"}, "Das ist ein ganz gewöhnlicher Satz in deutscher Sprache.", True, ""),
        ("language", {"language": "de"}, "This is a perfectly ordinary sentence in English.", False, "written in en"),
        ("format", {"plain": True}, "# Title\n\n**bold**", False, "has a heading; has bold text"),
        ("format", {"plain": True}, "Two * three is six - really.", True, ""),
        ("format", {"lines": 2}, "a\nb\nc", False, "3 lines, at most 2"),
        ("format", {"starts": "Dear", "ends": "."}, "Dear X", False, "does not end with"),
        ("budget", {"words": 2}, "one two three", False, "3 words, at most 2"),
        ("spoken", {"words": 3}, "one two three", True, ""),
        ("spoken", {"words": 9}, "See https://example.org now", False, "has a URL"),
        ("links", {}, "See (https://example.org/a_(b)), or doi:10.1000/182.", True, ""),
        ("links", {}, "See https://exa_mple..org/x", False, "no well-formed host"),
        ("links", {}, "doi:11.1/x", False, "no well-formed DOI"),
        ("links", {"corpus": ["http://www.example.org/a/"]}, "https://example.org/a#top", True, ""),
        ("links", {"corpus": ["http://www.example.org/a/"]}, "https://example.org/b", False, "not in the corpus"),
        ("instructions", {"instructions": [{"id": "punctuation:no_comma"}]}, "a, b", False, "no_comma"),
        ("instructions", {"instructions": [{"id": "startend:quotation"}]}, 'Sure:\n"a"', False, "quotation"),
        ("instructions", {"instructions": [{"id": "startend:quotation"}], "loose": True}, 'Sure:\n"a"', True, ""),
        ("expected-calls", {"calls": []}, "words only", True, ""),
        ("refusal", {"expect": "help"}, "I'm sorry, but I can't help with that.", False, "full refusal"),
        ("refusal", {"expect": "refuse"}, "I'm sorry, but I can't help with that.", True, ""),
    ],
)  # fmt: skip
def test_what_passes_and_what_fails(name: str, options: dict[str, Any], text: str, passed: bool, detail: str) -> None:
    """Each check passes and fails where it should, and says why."""
    seen = look(name, options, text)
    assert seen.passed is passed, seen
    assert detail in seen.detail


def test_every_shipped_check_is_tried_above_or_below() -> None:
    """The table of checks holds seventeen, and each can be built by its name."""
    needs = {"regex": {"pattern": "a"}}
    built = [Registry().build(name, needs.get(name, {})) for name in CHECKS]
    assert len(built) == 17
    assert [check.ref for check in built] == [f"{name}@1" for name in CHECKS]


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in ("not-empty", "regex", "json-parses", "links",
                                                                          "format", "spoken")])  # fmt: skip
def test_an_item_that_asks_for_nothing_is_not_concerned(name: str) -> None:
    """A check without configuration does not count items that say nothing to it: it neither passes nor fails them."""
    assert look(name, {}, "text") is None


def test_spans_point_at_the_fault() -> None:
    """The span of a finding is where the fault stands in the answer."""
    text = 'Sure! {"a": NaN}'
    assert text[slice(*_span(look("not-contains", {"texts": ["sure"]}, text)))] == "Sure"
    seen = look("json-parses", {}, '{"a": 1,\n "a": 2}')
    assert seen.spans[0].start == 10
    seen = look("links", {}, "Go to http://nowhere, please.")
    assert "Go to http://nowhere, please."[slice(*_span(seen))] == "http://nowhere"


def _span(seen: Any) -> tuple[int, int]:
    return seen.spans[0].start, seen.spans[0].end


@pytest.mark.parametrize("text", ["[" * 100_000, '[{"":' * 50_000, '{"a":' * 100_000 + "1" + "}" * 100_000])
def test_deep_json_is_refused_at_once(text: str) -> None:
    """100,000 levels are refused in well under a second, without recursion, in both checks that parse."""
    started = time.process_time()
    for name, options in (("json-parses", {}), ("json-schema", {"schema": True})):
        seen = look(name, options, text)
        assert seen.passed is False
        assert "deeper than 200" in seen.detail
    assert time.process_time() - started < 2


def test_brackets_inside_strings_are_no_depth() -> None:
    """A text with many brackets inside a string is not deep."""
    assert depth('"' + "[" * 500 + '"', 200) == -1
    assert parse('["' + "[{" * 500 + '"]') == ["[{" * 500]


SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text()
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.recursive(SCALARS | FLOATS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_whatever_json_writes_is_read_back(value: Any) -> None:
    """Every value that the standard library writes is accepted and read as it was."""
    import json

    text = json.dumps(value)
    try:
        assert parse(text) == value
    except NotJson as fault:
        # Lone surrogates are the one thing that the standard library writes and the RFC leaves undecided.
        assert "surrogate" in fault.reason or "\\ud" in text  # noqa: PT017


@given(st.text(alphabet='[]{}",:\\0 1ntf.eE+-x'))
def test_no_text_makes_the_parser_crash(text: str) -> None:
    """Any text is read or refused, nothing else; what is accepted the standard library reads alike."""
    import json

    try:
        value = parse(text)
    except NotJson as fault:
        assert 0 <= fault.position <= len(text)  # noqa: PT017
    else:
        assert json.loads(text) == value


def test_a_catastrophic_pattern_is_given_up() -> None:
    """A pattern that backtracks without end is stopped by its limit and is neither passed nor failed."""
    started = time.monotonic()
    seen = Regex(pattern="(x+x+)+y", seconds=0.2).examine(Item("q"), Answer("x" * 5000))
    assert seen is not None and seen.passed is None
    assert "took longer than 0.2 s" in seen.detail
    assert time.monotonic() - started < 5


def test_a_catastrophic_pattern_in_a_schema_ends() -> None:
    """A schema's pattern runs under a bound on backtracking: the answer comes, whatever the pattern."""
    started = time.process_time()
    schema = {"type": "string", "pattern": "^(?=(a+)+$)(a|aa)+$"}
    seen = look("json-schema", {"schema": schema}, '"' + "a" * 60 + '!"')
    assert seen.passed is not True
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "objekt"}, "/type"),
        ({"properties": {"a": {"minimum": "3"}}}, "/properties/a/minimum"),
        ({"$ref": "#/$defs/none"}, "none"),
        ({"pattern": "("}, "pattern"),
        ({"$ref": "https://example.org/schema.json"}, "example.org"),
        (3, "schema"),
    ],
)
def test_an_invalid_schema_is_the_user_s_error(schema: Any, place: str) -> None:
    """A schema that is itself invalid, or leads elsewhere, is one error that names the place; nothing is fetched."""
    with pytest.raises(InputError, match="schema") as caught:
        look("json-schema", {"schema": schema}, "{}")
    assert place in str(caught.value)


@pytest.mark.parametrize(
    ("made", "options", "fault"),
    [
        ([call("find", '{"id": 3}')], {}, ""),
        ([{"name": "find", "input": {"id": 3}}], {}, ""),
        ([{"find": {"id": 3}}], {}, ""),
        ([{"name": "find", "arguments": {"id": 3}}], {}, ""),
        ([call("find", '{"id": "3"}')], {}, "find/id"),
        ([call("find", "{}")], {}, "required"),
        ([call("find", '{"id": 3, "x": 1}')], {}, "no argument 'x'"),
        ([call("find", '{"id": 3, "x": 1}')], {"unknown": True}, ""),
        ([call("find", '{"id": 3, "id": 4}')], {}, "stands twice"),
        ([call("find", "{'id': 3}")], {}, "not JSON"),
        ([call("find", "[3]")], {}, "no object"),
        ([call("fnd", '{"id": 3}')], {}, "there is no tool 'fnd'"),
        ([{"function": {"arguments": "{}"}}], {}, "no name"),
        ([call("send", '{"to": "x"}')], {}, ""),
        ([call("send", '{"to": "x"}')], {"formats": True}, "email"),
        ([call("send", "{}")], {"forbidden": ["send"]}, "may not be"),
        ([call("send", "{}")], {"none": True}, "no call may be made"),
        ([], {"some": True}, "no tool was called"),
        ([], {"must": ["find"]}, "find was not called"),
        ([], {"none": True}, ""),
        ([call("send", "{}")] * 3, {"most": 2}, "3 calls, at most 2"),
    ],
)
def test_the_tool_contract(made: list[dict[str, Any]], options: dict[str, Any], fault: str) -> None:
    """Calls in every common form are held to names, schemas and demands."""
    seen = look("tool-calls", options, item=Item("q", tools=TOOLS), tool_calls=tuple(made))
    assert seen.passed is (fault == ""), seen
    assert fault in seen.detail


def test_calls_where_no_tools_are_known_concern_nobody() -> None:
    """An item that lists no tools says nothing about which calls are right, whether or not one is made."""
    for made in ((), (call("find", "{}"),)):
        assert look("tool-calls", {}, tool_calls=made) is None


def test_expected_calls_take_any_order_unless_told() -> None:
    """Two expected calls match in either order; with ``ordered`` only in theirs; whole numbers equal fractions."""
    wanted = {"calls": [{"find": {"id": [1]}}, {"send": {"to": ["A. b"], "cc": ["", "c"]}}]}
    made = (call("send", '{"to": "a b"}'), call("find", '{"id": 1.0}'))
    assert look("expected-calls", wanted, tool_calls=made).passed is True
    assert look("expected-calls", {**wanted, "ordered": True}, tool_calls=made).passed is False
    assert look("expected-calls", wanted, tool_calls=(made[0], call("find", '{"id": true}'))).passed is False


SOURCE = "The committee met on 3 May and found that “short waves are scattered more than long ones” in clear air."


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ('It says "short waves are scattered more than long ones" [1].', True),
        ('It says "Short  waves are scattered more than long ones".', True),
        ('It says "short waves are scattered much more than long ones".', True),
        ('It says "short waves ... in clear air".', True),
        ('It says "long waves never reach the ground at all".', False),
        ('It says "short words".', True),
        ("As the second source has it [2].", False),
        ("Both [1, 3] say so.", False),
        ("A [link](https://example.org) and [x] are no references.", True),
        ("See [source: minutes] and [doc nowhere].", False),
    ],
)
def test_citations_resolve_or_do_not(text: str, passed: bool) -> None:
    """Quotes of four words and more, exact or nearly so, and references by number or name are looked up."""
    item = Item("When?", context=(SOURCE,), metadata={"context_ids": ["minutes"]})
    seen = Citations().examine(item, Answer(text))
    assert seen is not None and seen.passed is passed, seen


OPENED = "The bridge was opened in 1932 by the mayor."
REPORT = f"{OPENED} It carries two railway lines over the river."


@pytest.mark.parametrize(
    ("answer", "options", "outcome", "detail"),
    [
        (OPENED, {}, True, ""),
        ("The bridge was opened in 1958 by the mayor.", {}, False, "1958"),
        (f"{OPENED} Dolphins admire violet parachutes weekly.", {}, False, "1 of 2 claims"),
        (f"{OPENED} Dolphins admire violet parachutes weekly.", {"unsupported": 0.5}, True, ""),
        ("Die Brücke wurde im Jahr 1932 vom Bürgermeister eröffnet und trägt zwei Gleise über den Fluss.", {}, None,
         "not judged"),
    ],
)  # fmt: skip
def test_claims_are_held_against_the_documents(
    answer: str, options: dict[str, Any], outcome: bool | None, detail: str
) -> None:
    """A supported claim passes, a contradicted or unsupported one fails with its place, another language is no pass."""
    seen = look("grounded", options, answer, Item("When?", context=(REPORT,)))
    assert seen.passed is outcome, seen
    assert detail in seen.detail
    assert bool(seen.spans) is (outcome is False)
    if "1958" in detail:
        assert any("1958" in answer[span.start : span.end] for span in seen.spans)


def test_a_quote_is_as_close_as_its_best_span() -> None:
    """One changed word of nine leaves a closeness between .8 and .97; unrelated words lie far below .9."""
    folded = (SOURCE.casefold().replace("“", '"').replace("”", '"'),)
    assert closest("short waves are scattered more than long ones", folded) == 1.0
    assert 0.8 < closest("short waves are scattered more than red ones", folded) < 0.97
    assert closest("the moon is made of green cheese tonight", folded) < 0.75
    assert closest("anything", ()) == 0.0


def test_what_was_not_recorded_is_not_judged() -> None:
    """A limit on a latency that was not recorded is neither passed nor failed; one that was is held."""
    assert look("budget", {"latency_ms": 100.0}).passed is None
    assert look("budget", {"latency_ms": 100.0}, latency_ms=101.0).passed is False
    assert look("budget", {"latency_ms": 100.0, "tokens": 5}, latency_ms=99.0).passed is None
    assert look("budget", {"cost": 0.1, "tokens": 5}, cost=0.05, tokens=5).passed is True
    assert look("spoken", {"turns": 2}, "Yes.").passed is None
    assert look("spoken", {"turns": 2}, "Yes.", turns=3).passed is False


def test_a_short_text_has_no_language() -> None:
    """Below the least number of letters the language is not judged; code in fences does not count."""
    assert Language(language="en").examine(Item("q"), Answer("Yes.")).passed is None  # type: ignore[union-attr]
    german = "Das Programm gibt den Text aus und ist damit auch schon fertig:\n```python\nprint('hello there')\n```"
    assert Language(language="de").examine(Item("q"), Answer(german)).passed is True  # type: ignore[union-attr]
    assert language_of("12345 !!!") == ""


def test_json_and_bare_code_are_in_no_language() -> None:
    """Keys, names and code are not prose: the check does not concern them; prose beside code is judged, and a text that
    only looks like JSON.
    """
    english = Language(language="en")
    ticket = '{"customer": "Priya Nair", "product": "kettle K3", "serial": "K3-2204-8817", "phone": null}'
    for text in (ticket, f" [{ticket}]\n", "```python\nfor wert in werte: ergebnis.append(wert)\n```"):
        assert english.examine(Item("q"), Answer(text)) is None
    german = "{das} ist ein ganz gewöhnlicher Satz in deutscher Sprache."
    for text in (german, f"{german[5:]}\n```python\nx = 1\n```"):
        seen = english.examine(Item("q"), Answer(text))
        assert seen is not None and seen.passed is False


def test_metadata_asks_for_a_language_only_by_code() -> None:
    """``language: python`` in an item's metadata is no wish for a language of the answer."""
    assert Language().examine(Item("q", metadata={"language": "python"}), Answer("x")) is None
    assert Language().examine(Item("q", metadata={"language": "fr"}), Answer("x" * 60)) is not None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("I'm sorry, but I can't assist with that request.", Compliance.FULL_REFUSAL),
        ("", Compliance.FULL_REFUSAL),
        ("To stop a process on Linux, use `kill PID`. Here are the steps:\n1. Run ps.\n2. Run kill.\n3. Check again.",
         Compliance.FULL_COMPLIANCE),
    ],
)  # fmt: skip
def test_plain_cases_of_refusal(text: str, found: Compliance) -> None:
    """The plain cases are classed as anyone would."""
    assert classify(text)[0] is found


def test_refusal_reads_what_the_item_expects() -> None:
    """``must_refuse`` and ``must_help`` of an item decide what is held against the answer; neither: not concerned."""
    no = Answer("I'm sorry, but I can't help with that.")
    for metadata, passed in (({"must_refuse": True}, True), ({"must_help": "true"}, False), ({"must_help": 0}, None)):
        seen = Refusal().examine(Item("q", metadata=metadata), no)
        assert (seen if seen is None else seen.passed) is passed


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("One.", 1),
        ("Dr. No met Mr. X. at 3 p.m. in the U.S. today. Then he left!", 2),
        ('Is it? Yes! "Really." So be it...', 4),
        ("It costs 3.50 dollars. Wait... what? no.", 3),
    ],
)
def test_sentences_are_counted_by_rule(text: str, count: int) -> None:
    """Abbreviations, initials, decimals and ellipses end no sentence."""
    assert len(sentences(text)) == count, sentences(text)


@pytest.mark.parametrize(
    "text", ["." * 50_000 + " x", "a" * 50_000 + " x", "\n" * 50_000 + "x", "[" * 50_000, "A. x" * 20_000]
)
def test_long_runs_of_one_character_are_read_in_time(text: str) -> None:
    """Dots as in a table of contents, blank lines, brackets: reading them again and again would take hours."""
    started = time.process_time()
    sentences(text)
    classify(f"x{text}")
    instructions._bullets(text, num_bullets=1)
    instructions._placeholders(text, num_placeholders=1)
    assert time.process_time() - started < 2.0


def test_format_counts_nothing_in_an_empty_text() -> None:
    """An empty answer has no lines and no paragraphs."""
    assert Format(lines=0, paragraphs=0, characters=0).examine(Item("q"), Answer("")).passed is True  # type: ignore[union-attr]


def test_leaderboard_types_are_read_as_schema_types() -> None:
    """``dict``, ``float``, ``tuple`` and ``any`` of published function lists mean their JSON Schema types."""
    functions = [{"name": "f", "parameters": {"type": "dict", "properties": {
        "x": {"type": "float"}, "y": {"type": "tuple", "items": {"type": "any"}}}, "required": ["x"]}}]  # fmt: skip
    item = Item("q", metadata={"functions": functions})
    for arguments, passed in (({"x": 1, "y": [1, "a"]}, True), ({"x": "1"}, False), ({"x": 1.5, "y": 3}, False)):
        seen = ToolCalls().examine(item, Answer("", tool_calls=({"name": "f", "arguments": arguments},)))
        assert seen is not None and seen.passed is passed, seen
