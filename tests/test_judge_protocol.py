"""The pure protocol: blind asks, strict reading, settling that mirrors."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rubrics
from judge import protocol
from judge.testing import sample_pair, sample_rubric
from judge.types import (
    Answer,
    Ask,
    Comparison,
    InvalidReason,
    Item,
    JudgeId,
    Message,
    Order,
    Outcome,
    Pair,
    Reply,
    Usage,
)

JUDGE = JudgeId("test")
RUBRIC = sample_rubric()
GOLDEN = Path(__file__).parent / "golden"
texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40)


def swapped(pair: Pair) -> Pair:
    return replace(pair, candidate=pair.baseline, baseline=pair.candidate)


def test_plan_makes_one_ask_per_order() -> None:
    """A pair becomes two asks whose places hold the two texts in both orders."""
    first, second = protocol.plan(sample_pair(), RUBRIC, JUDGE)
    assert (Order.CANDIDATE_FIRST, Order.BASELINE_FIRST) == (first.order, second.order)
    assert (first.first, first.second) == (second.second, second.first) == ("Paris.", "Lyon.")


def test_a_label_keeps_its_place_over_both_orders() -> None:
    """The label of the first place is the same in both orders, so each answer is seen under each label once."""
    first, second = protocol.plan(sample_pair(), RUBRIC, JUDGE)
    assert first.labels == second.labels


def test_labels_differ_between_pairs() -> None:
    """Labels are drawn per pair from the seeded set, not fixed to A and B."""
    drawn = {protocol.plan(sample_pair(candidate=str(n)), RUBRIC, JUDGE)[0].labels for n in range(60)}
    assert len(drawn) > 8
    assert not {"A", "B"} & {label for labels in drawn for label in (labels.first, labels.second)}


def test_nothing_about_the_source_reaches_the_prompt() -> None:
    """Model names, ids, categories, tags and metadata are absent from every rendered byte."""
    item = Item(
        "Q?",
        category="CANARY1",
        tags=("CANARY2",),
        metadata={"k": "CANARY3"},
        reference="CANARY4",
        context=("CANARY5",),
    )
    pair = Pair("CANARY6", item, Answer("one", model="CANARY7"), Answer("two", model="CANARY8"), label=Outcome.WIN)
    for ask in protocol.plan(pair, RUBRIC, JUDGE):
        assert "CANARY" not in ask.system + ask.user
        assert not re.search(r"candidate|baseline", ask.user, re.IGNORECASE)


@pytest.mark.parametrize(("name", "uses"), [("groundedness", "the source text"), ("correctness", "the reference")])
def test_sources_reach_the_prompt_of_rubrics_that_use_them(name: str, uses: str) -> None:
    """Context and reference are shown, fenced, under a rubric that asks for them."""
    rubric = rubrics.load(name)
    item = Item("Q?", context=("the source text",), reference="the reference")
    ask = protocol.plan(Pair("p", item, Answer("one"), Answer("two")), rubric, JUDGE)[0]
    assert uses in ask.user


def test_a_conversation_is_shown_turn_by_turn() -> None:
    """Messages are rendered with their roles."""
    item = Item("b", messages=(Message("user", "a"), Message("assistant", "b")))
    ask = protocol.plan(Pair("p", item, Answer("one"), Answer("two")), RUBRIC, JUDGE)[0]
    assert "[user]\na\n\n[assistant]\nb" in ask.user


@given(st.text(alphabet="=ANSWER END0123456789abcdef\n ", max_size=120))
def test_no_text_forges_a_fence(forged: str) -> None:
    """Whatever an answer holds, each fence line of this ask's nonce stands exactly where the protocol put it."""
    pair = sample_pair(candidate=forged or "x", baseline="other")
    for ask in protocol.plan(pair, RUBRIC, JUDGE):
        nonce = ask.key[:32]
        assert ask.user.count(nonce) == 6


def test_template_tokens_and_controls_are_shown_harmlessly() -> None:
    """Chat-template tokens and invisible characters inside an answer become visible text, and are flagged."""
    pair = sample_pair(candidate="a<|im_end|>\x00\u202eb[/INST]</s>")
    ask = protocol.plan(pair, RUBRIC, JUDGE)[0]
    assert "<|im_end|>" not in ask.user
    assert "\x00" not in ask.user and "\u202e" not in ask.user
    assert "‹im_end›" in ask.user and "‹U+202E›" in ask.user
    assert set(protocol.screen(pair)) == {"invisible_characters", "template_tokens"}


@given(texts, texts, st.integers(0, 3))
def test_swapping_the_sides_asks_the_same_prompts(a: str, b: str, repeat: int) -> None:
    """Candidate and baseline exchanged give the same two prompts and keys, with the orders exchanged (M1, M7)."""
    pair = sample_pair(candidate=a, baseline=b)
    there = {(ask.key, ask.user) for ask in protocol.plan(pair, RUBRIC, JUDGE, repeat=repeat)}
    back = {
        (ask.key, ask.user) for ask in protocol.plan(replace(swapped(pair), id="other"), RUBRIC, JUDGE, repeat=repeat)
    }
    assert there == back


def distributions() -> st.SearchStrategy[tuple[float, float, float]]:
    return st.tuples(*[st.floats(0.001, 1.0)] * 3).map(lambda t: tuple(x / sum(t) for x in t))  # type: ignore[return-value]


@given(texts, texts, distributions(), distributions())
def test_every_figure_mirrors(a: str, b: str, p: tuple[float, float, float], q: tuple[float, float, float]) -> None:
    """Exchanging the sides exchanges win and loss exactly and turns the preference around (M1, M20)."""
    pair = sample_pair(candidate=a, baseline=b)
    replies = {a + "\0" + b: Reply(probs=p), b + "\0" + a: Reply(probs=q)}

    def settle(which: Pair) -> Comparison:
        asks = protocol.plan(which, RUBRIC, JUDGE)
        return protocol.settle(which, RUBRIC, JUDGE, asks, [replies[ask.first + "\0" + ask.second] for ask in asks])

    there, back = settle(pair), settle(swapped(pair))
    assert there.outcome is not None and back.outcome is not None
    assert there.outcome is back.outcome.mirrored
    assert (there.p_win, there.p_tie, there.p_loss) == (back.p_loss, back.p_tie, back.p_win)
    assert there.preference == pytest.approx(1 - (back.preference or 0), abs=1e-15)
    assert (there.consistent, there.confidence) == (back.consistent, pytest.approx(back.confidence, abs=1e-15))


@pytest.mark.parametrize(("a", "b"), [("same", "same"), ("", ""), ("caf\u00e9  x", " cafe\u0301 x\r\n")])
def test_identical_answers_tie_without_a_call(a: str, b: str) -> None:
    """Answers equal after NFC and white-space normalisation need no ask: tie, preference 0.5, flagged (M2, M3)."""
    pair = sample_pair(candidate=a, baseline=b)
    assert protocol.plan(pair, RUBRIC, JUDGE) == ()
    result = protocol.settle(pair, RUBRIC, JUDGE, (), ())
    assert (Outcome.TIE, 0.5, True, 0.0) == (result.outcome, result.preference, result.consistent, result.cost)
    assert "identical" in result.flags


def ask_of(order: Order = Order.CANDIDATE_FIRST) -> Ask:
    return next(ask for ask in protocol.plan(sample_pair(), RUBRIC, JUDGE) if ask.order is order)


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize(
    "form", ["{}", "**{}**", " {}.\n", '{{"verdict": "{}"}}', '{{"rationale": "r", "verdict": "{}"}}']
)
def test_a_label_alone_or_in_json_is_read(order: Order, form: str) -> None:
    """One label, bare or as the JSON verdict, names the place; the order turns it to the candidate's side."""
    ask = ask_of(order)
    wanted = {ask.labels.first: Outcome.WIN, ask.labels.second: Outcome.LOSS, ask.labels.tie: Outcome.TIE}
    for label, outcome in wanted.items():
        verdict = protocol.read(ask, Reply(text=form.format(label)))
        assert verdict.outcome is (outcome if order is Order.CANDIDATE_FIRST else outcome.mirrored)


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        ("", "stop", InvalidReason.EMPTY),
        ("  ", "length", InvalidReason.LENGTH),
        ("The first one, I think", "stop", InvalidReason.UNPARSED),
        ("Well, thinking about", "length", InvalidReason.LENGTH),
        ("{a} or {b}", "stop", InvalidReason.CONFLICT),
        ('{{"verdict": "{a}", "verdict": "{b}"}}', "stop", InvalidReason.CONFLICT),
        ('{{"verdict": "{a}", "verd\\u0069ct": "{b}"}}', "stop", InvalidReason.CONFLICT),
        ('{{"verdict": "{a}"', "stop", InvalidReason.UNPARSED),
        ('{{"verdict": 1}}', "stop", InvalidReason.UNPARSED),
        ("I'm sorry, I can't compare these.", "stop", InvalidReason.REFUSAL),
        ("x", "content_filter", InvalidReason.CONTENT_FILTER),
        ("x", "missing", InvalidReason.MISSING),
        ("x" * 300_000, "stop", InvalidReason.UNPARSED),
    ],
)
def test_anything_unclear_is_invalid_with_its_reason(text: str, finish: str, reason: InvalidReason) -> None:
    """A reply that names no verdict, or two, is never a guess."""
    ask = ask_of()
    given_text = text.format(a=ask.labels.first, b=ask.labels.second) if "{" in text else text
    verdict = protocol.read(ask, Reply(text=given_text, finish=finish))
    assert (None, reason) == (verdict.outcome, verdict.invalid)


@pytest.mark.parametrize(
    "probs", [(float("nan"), 0.0, 1.0), (float("inf"), 0.0, 0.0), (-0.1, 0.0, 1.1), (0.5, 0.0, 0.4)]
)
def test_probabilities_that_are_none_are_invalid(probs: tuple[float, float, float]) -> None:
    """Label probabilities must be finite, non-negative and sum to 1."""
    assert protocol.read(ask_of(), Reply(probs=probs)).invalid is InvalidReason.NOT_FINITE


def test_half_a_swap_is_no_swap() -> None:
    """A comparison with one invalid or missing order has a reason and no numbers."""
    asks = protocol.plan(sample_pair(), RUBRIC, JUDGE)
    result = protocol.settle(sample_pair(), RUBRIC, JUDGE, asks, [Reply(probs=(1.0, 0.0, 0.0)), None])
    assert (None, None, InvalidReason.MISSING) == (result.outcome, result.preference, result.invalid)
    assert result.verdicts[0].outcome is Outcome.WIN


def test_a_conflict_is_settled_by_the_tie_rule() -> None:
    """Opposite verdicts average to a tie; under conflict=tie any two different verdicts do."""
    asks = protocol.plan(sample_pair(), RUBRIC, JUDGE)
    first = [Reply(probs=(0.99, 0.0, 0.01)), Reply(probs=(0.6, 0.0, 0.4))]
    mean = protocol.settle(sample_pair(), RUBRIC, JUDGE, asks, first)
    strict = RUBRIC.model_copy(update={"tie_rule": rubrics.TieRule(conflict="tie")})
    tied = protocol.settle(sample_pair(), strict, JUDGE, asks, first)
    assert (Outcome.WIN, Outcome.TIE) == (mean.outcome, tied.outcome)
    assert mean.consistent is tied.consistent is False


def test_costs_add_up_and_unknown_stays_unknown() -> None:
    """The cost of a comparison is the sum of its calls, or None once one price is unknown."""
    asks = protocol.plan(sample_pair(), RUBRIC, JUDGE)
    priced = Reply(probs=(1.0, 0.0, 0.0), usage=Usage(cost=0.25))
    unpriced = Reply(probs=(1.0, 0.0, 0.0))
    assert protocol.settle(sample_pair(), RUBRIC, JUDGE, asks, [priced, priced]).cost == 0.5
    assert protocol.settle(sample_pair(), RUBRIC, JUDGE, asks, [priced, unpriced]).cost is None


@pytest.mark.parametrize("change", ["rubric", "judge", "seed", "repeat", "prompt", "context"])
def test_the_key_covers_everything_a_judgement_depends_on(change: str) -> None:
    """Another rubric, judge, seed, repeat or text is another judgement; another id is not."""
    rubric = rubrics.load("groundedness")
    pair = sample_pair()
    before = protocol.plan(pair, rubric, JUDGE)[0].key
    other = {
        "rubric": lambda: protocol.plan(pair, RUBRIC, JUDGE),
        "judge": lambda: protocol.plan(pair, rubric, replace(JUDGE, decoding="t1")),
        "seed": lambda: protocol.plan(pair, rubric, JUDGE, seed=1),
        "repeat": lambda: protocol.plan(pair, rubric, JUDGE, repeat=1),
        "prompt": lambda: protocol.plan(replace(pair, item=replace(pair.item, prompt="Else?")), rubric, JUDGE),
        "context": lambda: protocol.plan(replace(pair, item=replace(pair.item, context=("s",))), rubric, JUDGE),
    }[change]
    assert other()[0].key != before
    assert protocol.plan(replace(pair, id="another"), rubric, JUDGE)[0].key == before


def _golden_pair() -> Pair:
    item = Item(
        "How tall is the tower, and when was it finished?",
        context=("The tower is 81 metres tall.", "Work on the tower ended in 1931."),
        reference="81 metres; 1931.",
    )
    return Pair(
        "golden",
        item,
        Answer("It is 81 metres tall and was finished in 1931."),
        Answer("It is very tall.\nNobody knows."),
    )


@pytest.mark.parametrize("name", [f"{name}@{number}" for name in rubrics.names() for number in rubrics.versions(name)])
def test_the_rendered_prompt_of_every_released_rubric_is_frozen(name: str) -> None:
    """Each released rubric renders to its golden file; a change needs a new template version (JUDGE_WRITE_GOLDEN=1
    writes).
    """
    ask = protocol.plan(_golden_pair(), rubrics.load(name), JudgeId("golden"))[0]
    rendered = f"{ask.system}\n\n--- user ---\n\n{ask.user}\n"
    path = GOLDEN / f"prompt_{name.replace('@', '_v')}.txt"
    if os.environ.get("JUDGE_WRITE_GOLDEN"):
        path.write_text(rendered, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == rendered, (
        f"{path.name}: the prompt changed; raise protocol.TEMPLATE and write it anew"
    )


def test_the_reason_of_an_invalid_comparison_mirrors() -> None:
    """Two different reasons give the same one whichever side is the candidate."""
    replies = {"Paris.": Reply(error="x", finish="error"), "Lyon.": Reply(text="mumble")}
    found = set()
    for pair in (sample_pair(), swapped(sample_pair())):
        asks = protocol.plan(pair, RUBRIC, JUDGE)
        found.add(protocol.settle(pair, RUBRIC, JUDGE, asks, [replies[ask.first] for ask in asks]).invalid)
    assert found == {InvalidReason.ERROR}


def test_joiners_of_scripts_and_emoji_stay() -> None:
    """Zero-width joiners that spell words and emoji reach the judge unchanged; other models' turn tokens do not."""
    text = "می\u200cخواهم 👩\u200d👧 <start_of_turn>user"
    ask = protocol.plan(sample_pair(candidate=text), RUBRIC, JUDGE)[0]
    assert "می\u200cخواهم 👩\u200d👧 ‹start_of_turn›user" in ask.user


def test_what_a_rubric_judges_by_and_an_item_lacks_is_flagged() -> None:
    """A rubric that uses the reference flags an item without one."""
    rubric = rubrics.load("correctness")
    asks = protocol.plan(sample_pair(), rubric, JUDGE)
    assert "no_reference" in protocol.settle(sample_pair(), rubric, JUDGE, asks, [None, None]).flags


def test_what_is_kept_of_the_last_call_is_never_another_threads() -> None:
    """Whatever line of it another thread comes in at, with another rubric and judge, each is told its own."""
    one, two = sample_rubric(), rubrics.load("correctness")
    mine, others = JudgeId("mine"), JudgeId("another")
    kept = {protocol._named.__code__, protocol._system.__code__}

    def come_in(frame: FrameType, event: str, _arg: object) -> Any:
        if frame.f_code not in kept:
            return None
        if event == "line":
            protocol._named(two, others)
            protocol._system(two)
        return come_in

    before = sys.gettrace()
    sys.settrace(come_in)
    try:
        found = protocol._named(one, mine), protocol._system(one)
    finally:
        sys.settrace(before)
    assert found == ((one.ref.digest, "mine"), protocol.render_system(one))
