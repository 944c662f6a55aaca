"""The rubric as values: tie rule, weights, strictness, and messages that name file, line, field and fix."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rubrics import Criterion, InputError, Outcome, Rubric, RubricError, TieRule, parse
from rubrics.source import MAX_BYTES, Malformed

TEXT = """---
name: tone
version: 1
title: Tone
summary: The better answer has the better tone.
uses: [context]
criteria:
  - id: calm
    text: Stays calm.
    weight: 3
  - id: kind
    text: Is kind.
    weight: 1
    must: true
tie_rule:
  margin: 0.1
  conflict: tie
examples:
  - prompt: Hello?
    first: Hi.
    second: What.
    better: first
    why: Kinder.
changelog:
  - 'v1: First.'
---

Judge the tone by the sources.

Second paragraph.
"""


@st.composite
def beliefs(draw: st.DrawFn) -> tuple[float, float, float]:
    """Three probabilities that sum to 1 as far as floats can."""
    parts = [draw(st.floats(0, 1)) for _ in range(3)]
    total = math.fsum(parts)
    if total == 0:
        return 0.0, 1.0, 0.0
    win, tie, loss = (part / total for part in parts)
    return win, tie, loss


@given(beliefs(), st.floats(0, 0.5, exclude_max=True))
def test_tie_rule_is_mirror_symmetric(belief: tuple[float, float, float], margin: float) -> None:
    """Swapping win and loss mirrors the outcome for every float, on the edge of the tie band too."""
    win, tie, loss = belief
    rule = TieRule(margin=margin)
    assert rule.outcome(loss, tie, win) is rule.outcome(win, tie, loss).mirrored


@given(st.floats(0, 0.5), st.floats(0, 0.49))
def test_equal_probabilities_tie(share: float, margin: float) -> None:
    """Equal chances of win and loss are a tie under every margin."""
    assert TieRule(margin=margin).outcome(share, 1 - 2 * share, share) is Outcome.TIE


@pytest.mark.parametrize(
    ("belief", "outcome"),
    [
        ((0.56, 0.0, 0.44), Outcome.WIN),
        ((0.54, 0.0, 0.46), Outcome.TIE),
        ((0.46, 0.0, 0.54), Outcome.TIE),
        ((0.44, 0.0, 0.56), Outcome.LOSS),
        ((0.2, 0.8, 0.0), Outcome.WIN),
        ((0.0, 1.0, 0.0), Outcome.TIE),
        ((0.625, 0.0, 0.375), Outcome.WIN),
    ],
)
def test_tie_rule_reads_the_soft_preference(belief: tuple[float, float, float], outcome: Outcome) -> None:
    """The outcome follows win + tie/2 against 0.5 plus or minus the default margin."""
    assert TieRule().outcome(*belief) is outcome


def test_the_edge_of_the_band_is_a_tie() -> None:
    """A preference of exactly 0.5 plus the margin is still a tie."""
    assert TieRule(margin=0.125).outcome(0.625, 0.0, 0.375) is Outcome.TIE


@pytest.mark.parametrize(
    "belief", [(math.nan, 0.5, 0.5), (math.inf, 0.0, 0.0), (-0.1, 0.6, 0.5), (0.5, 0.5, 0.5), (0.0, 0.0, 0.0)]
)
def test_tie_rule_refuses_what_is_no_probability(belief: tuple[float, float, float]) -> None:
    """Numbers that are no probabilities are refused instead of being called a tie."""
    with pytest.raises(InputError, match="sum to 1"):
        TieRule().outcome(*belief)


@pytest.mark.parametrize("margin", [-0.01, 0.5, math.nan])
def test_tie_rule_refuses_a_margin_out_of_range(margin: float) -> None:
    """A margin stands in [0, 0.5)."""
    with pytest.raises(ValidationError):
        TieRule(margin=margin)


def test_parse_reads_every_field() -> None:
    """All fields of the front matter and the body arrive, lists as tuples."""
    rubric = parse(TEXT)
    assert (rubric.name, rubric.version, rubric.title, rubric.mode, rubric.uses) == (
        "tone",
        1,
        "Tone",
        "pairwise",
        ("context",),
    )
    assert [(c.id, c.weight, c.must) for c in rubric.criteria] == [("calm", 3, False), ("kind", 1, True)]
    assert (rubric.tie_rule.margin, rubric.tie_rule.conflict) == (0.1, "tie")
    assert rubric.examples[0].better == "first"
    assert rubric.body == "Judge the tone by the sources.\n\nSecond paragraph."
    assert str(rubric.ref) == "tone@1"
    assert rubric.ref.digest == rubric.digest
    assert not rubric.released


def test_shares_are_normalised_weights() -> None:
    """Shares keep the order of the file and sum to 1."""
    assert dict(parse(TEXT).shares) == {"calm": 0.75, "kind": 0.25}


def test_rubric_is_frozen() -> None:
    """A rubric cannot be changed after it was read."""
    with pytest.raises(ValidationError):
        parse(TEXT).title = "Other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Criterion(id="a", text="b", weight=1).weight = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "says"),
    [
        ("title: Tone", "titel: Tone", 4, "titel", "did you mean `title`"),
        ("title: Tone\n", "", 2, "title", "missing; add `title:`"),
        ("weight: 3", "weight: 0", 10, "criteria.0.weight", "greater than 0"),
        ("weight: 3", "weight: -1", 10, "criteria.0.weight", "greater than 0"),
        ("weight: 3", "weight: '3'", 10, "criteria.0.weight", "valid number"),
        ("weight: 3", "weight: true", 10, "criteria.0.weight", "valid number"),
        ("weight: 3", "wieght: 3", 10, "criteria.0.wieght", "did you mean `weight`"),
        ("version: 1", "version: 1.5", 3, "version", "valid integer"),
        ("version: 1", "version: 0", 3, "version", "greater than or equal to 1"),
        ("name: tone", "name: Tone_Of", 2, "name", "pattern"),
        ("must: true", "must: yes", 14, "criteria.1.must", "valid boolean"),
        ("better: first", "better: A", 22, "examples.0.better", "'first', 'second' or 'tie'"),
        ("[context]", "[sources]", 6, "uses.0", "'context' or 'reference'"),
        ("[context]", "[context, context]", 2, "front matter", "'context' is given twice"),
        ("id: kind", "id: calm", 2, "front matter", "'calm' is given twice"),
        ("margin: 0.1", "margin: 0.7", 16, "tie_rule.margin", "less than 0.5"),
        ("title: Tone", "title: 2026-01-02", 0, "", ""),
        ("title: Tone", "title: ' '", 4, "title", "empty"),
        ("title: Tone", 'title: "a\\x1b[2Jb"', 4, "title", "U+001B"),
    ],
)
def test_faults_name_line_field_and_fix(old: str, new: str, line: int, field: str, says: str) -> None:
    """A fault in the front matter is reported with its file, line, field and fix; a date stays a string."""
    text = TEXT.replace(old, new, 1)
    assert text != TEXT
    if not says:
        assert parse(text).title == "2026-01-02"
        return
    with pytest.raises(Malformed) as caught:
        parse(text, path="tone.md")
    found = [problem for problem in caught.value.problems if problem.field == field]
    assert found, caught.value.problems
    assert found[0].path == "tone.md"
    assert says in found[0].message
    assert found[0].line == line


def test_several_faults_are_all_kept() -> None:
    """The message names the first fault and counts the others."""
    text = TEXT.replace("weight: 3", "weight: 0").replace("title: Tone\n", "")
    with pytest.raises(Malformed, match=r"and 1 more: judge rubric lint tone.md") as caught:
        parse(text, path="tone.md")
    assert len(caught.value.problems) == 2


def bomb() -> str:
    """Nine levels of aliases, which would be a billion words."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("front", "says"),
    [
        (bomb(), "anchors and aliases"),
        ("name: *nothing", "anchors and aliases"),
        ("name: !!python/object/apply:os.system ['true']", "tags are not allowed"),
        ("version: !!int ''", "tags are not allowed"),
        ("name: a\nname: b", "given twice (first on line 2)"),
        ("criteria:\n  - id: a\n    id: b", "given twice (first on line 3)"),
        ("name: " + "[" * 400 + "]" * 400, "nested deeper"),
        ("1: a", "a key must be a plain word"),
        ("? [a]\n: b", "a key must be a plain word"),
        ("{name: a}", "one a field"),
        ("- a", "one a field"),
        ("", "one a field"),
        ("name: [a", "not valid YAML"),
        ("name: a\n...\nname: b", "not valid YAML"),
        ("\tname: a", "not valid YAML"),
        ('name: "\\ud800"', "name"),
        ("version: " + "9" * 5000, "version"),
        ("criteria: 5", "criteria"),
        ("examples: {a: b}", "examples"),
        ("<<: {name: a}", "unknown key"),
    ],
)
def test_hostile_yaml_is_refused(front: str, says: str) -> None:
    """Bombs, tags, doubled keys, deep nesting and other abuse end in a one-line error that names the file."""
    with pytest.raises(Malformed) as caught:
        parse(f"---\n{front}\n---\nBody.\n", path="bad.md")
    assert any(says in str(problem) for problem in caught.value.problems), caught.value.problems
    assert str(caught.value).startswith("bad.md:")
    assert "\n" not in str(caught.value)


@given(st.text(max_size=300))
def test_any_front_matter_reads_or_is_refused(front: str) -> None:
    """No text whatever in the front matter causes another error than a rubric error."""
    with suppress(RubricError):
        parse(f"---\n{front}\n---\nBody.\n")


@pytest.mark.parametrize(
    ("data", "line", "says"),
    [
        (b"---\nname: \xff\n---\n", 2, "not UTF-8"),
        (TEXT.replace("Judge", "Ju\x00dge").encode(), 28, "U+0000"),
        (TEXT.replace("Judge", "Ju\u202edge").encode(), 28, "U+202E"),
        (TEXT.replace("Judge", "Ju\u2028dge").encode(), 28, "U+2028"),
        (TEXT.replace("Judge", "Ju\U000e0041dge").encode(), 28, "U+E0041"),
        (TEXT.encode() + b"x" * MAX_BYTES, 1, "at most 65536"),
        (b"# Only Markdown\n", 1, "missing; start the file"),
        (b"---\nname: tone\n", 1, "not closed"),
        (b"", 1, "missing; start the file"),
        (TEXT[: TEXT.index("Judge")].encode(), 26, "empty; write the instructions"),
    ],
)
def test_broken_files_are_refused(data: bytes, line: int, says: str) -> None:
    """Files that are no UTF-8, hide characters, are too large or lack a part are refused with the line."""
    with pytest.raises(Malformed) as caught:
        parse(data)
    assert says in caught.value.problems[0].message
    assert caught.value.problems[0].line == line


@pytest.mark.parametrize(
    "same",
    [TEXT.replace("\n", "\r\n"), TEXT.replace("\n", "\r"), "\ufeff" + TEXT, TEXT.rstrip(), TEXT + "\n\n  \n"],
)
def test_digest_ignores_line_ends_and_trailing_space(same: str) -> None:
    """CRLF, a byte order mark and white space at the end of the file leave digest and content alone."""
    assert parse(same) == parse(TEXT)


NOTE = """calibrated_on:
  - gold: llmbar-natural
    judge: local
    date: 2026-11-20
    agreement: 0.61
"""


def test_digest_ignores_calibrated_on() -> None:
    """Noting how well a judge did is not a change of the rubric, and the note is read."""
    noted = TEXT.replace("'v1: First.'\n", "'v1: First.'\n" + NOTE)
    assert parse(noted).digest == parse(TEXT).digest
    assert parse(noted).calibrated_on[0].agreement == 0.61
    assert parse(noted.replace("0.61", "0.99").replace("\n", "\r\n")).digest == parse(TEXT).digest


def test_calibrated_on_hides_nothing() -> None:
    """Only the last key may be left out of the digest, so that no other field slips out with it."""
    early = TEXT.replace("title: Tone\n", NOTE + "title: Tone\n")
    with pytest.raises(Malformed, match="must be the last key"):
        parse(early)
    quoted = TEXT.replace("summary: The", 'summary: "The\ncalibrated_on: x').replace(
        "better tone.\n", 'better tone."\n'
    )
    with suppress(Malformed):
        assert parse(quoted).digest != parse(quoted.replace("weight: 3", "weight: 2")).digest


@given(st.integers(0, len(TEXT.rstrip()) - 1))
def test_digest_sees_every_character(index: int) -> None:
    """Replacing any one character of the file changes the digest or makes the file unreadable."""
    other = "z" if TEXT[index] != "z" else "y"
    try:
        changed = parse(TEXT[:index] + other + TEXT[index + 1 :])
    except RubricError:
        return
    assert changed.digest != parse(TEXT).digest


def test_rubric_keys_cannot_be_set_from_the_file() -> None:
    """A front matter cannot claim a digest or a release of its own."""
    for key in ("digest: x", "released: true", "text: x", "body: x"):
        with pytest.raises(Malformed, match="unknown key"):
            parse(TEXT.replace("version: 1", f"version: 1\n{key}"))
    assert "released" in Rubric.model_fields
