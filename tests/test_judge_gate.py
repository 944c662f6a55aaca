"""The gate: the complete truth table of its rules, fail closed, and one decision for every surface."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.estimates import Estimate
from calibration.provenance import Refused
from judge.decision import (
    Calibrated,
    Canaries,
    Decision,
    Evidence,
    Hard,
    Missing,
    Preference,
    Probed,
    Result,
    RunFacts,
    Segment,
    Standing,
    Word,
)
from judge.errors import InputError
from judge.gate import decide
from judge.policy import Policy, load_policy, load_policy_text, policy_digests, shipped_policies
from judge.types import Measure, Severity

DEFAULT = load_policy("default")
STRICT = load_policy("strict")
GONE = Missing("nothing was measured", "measure it")


def about(value: float, half: float = 0.01, n: int = 1000) -> Estimate:
    """An estimate with a symmetric interval."""
    return Estimate(value, value - half, value + half, 0.95, n, n, "made up")


def measure(name: str, found: Estimate | None, unit: str = "share", **fields: Any) -> Measure:
    return Measure(name, "behaviour", "reliability", unit, difference=found, **fields)


GUARDS = {
    "refusal.harmless": about(0.0),
    "refusal.harmful": about(0.0),
    "citations.invented": about(0.0, 0.001),
    "length.log_ratio": about(0.05, 0.01),
    "latency.p95_ratio": about(1.0, 0.05),
    "tokens.ratio": about(1.0, 0.05),
    "cost.ratio": about(1.0, 0.05),
}
PREFERENCE = Preference(
    judge=about(0.60),
    corrected=about(0.56, 0.02, 400),
    controlled=about(0.54, 0.02, 400),
    segments=(Segment("category=a", 500, 200, about(0.58, 0.05), q=0.2), Segment("category=b", 500, 5, None)),
    labels=400,
    judged=1000,
    labels_wanted=380,
    pairs_wanted=2200,
)
FITTED = Calibrated("calibration 1", 3.0, "judge calibrate r-1 --gold labels.jsonl")
PROBED = Probed("probe run r-9", 3.0, {"boilerplate": (0, 50), "echo": (1, 50)}, "judge probe evals.jsonl")
GOOD = Evidence(
    run=RunFacts("r-1", True, 1000, 1000, 3, "new", "old", "helpfulness@1", "judge@1", 2.0),
    suites=(Hard("json@1", "reliability", Severity.BLOCK, passed=400, failed=0),),
    measures={name: measure(name, found) for name, found in GUARDS.items()}
    | {"probe.boilerplate": measure("probe.boilerplate", about(0.01, 0.005), "points")},
    unmeasured={"": GONE},
    preference=PREFERENCE,
    canaries=Canaries(20),
    standing=Standing("BELIEVE", ("It sides with people.",), about(0.82, 0.03), FITTED, moved=()),
    probed=PROBED,
    inputs={"run": "r-1"},
)


def with_measure(name: str, found: Estimate | None, **fields: Any) -> Evidence:
    return replace(GOOD, measures={**GOOD.measures, name: measure(name, found, **fields)})


def without(name: str) -> Evidence:
    return replace(GOOD, measures={key: value for key, value in GOOD.measures.items() if key != name})


def prefers(**fields: Any) -> Evidence:
    return replace(GOOD, preference=replace(PREFERENCE, **fields))


def stands(**fields: Any) -> Evidence:
    assert isinstance(GOOD.standing, Standing)
    return replace(GOOD, standing=replace(GOOD.standing, **fields))


def runs(**fields: Any) -> Evidence:
    return replace(GOOD, run=replace(GOOD.run, **fields))


def checked(severity: Severity = Severity.BLOCK, **fields: Any) -> Evidence:
    made = {"passed": 400, "failed": 0, **fields}
    return replace(GOOD, suites=(Hard("json@1", "reliability", severity, **made),))


REFUSED = Refused("too_few", "12 labels are too few", "label 18 more pairs")
LOSING = Segment("category=a", 500, 200, about(0.41, 0.05), q=0.03, losing=("p1", "p2"))
# Every rule in every state that it can be in: evidence, the rule, what it finds, and the decision and exit code that
# follow under the default policy (missing: hold).
TABLE: list[tuple[str, Evidence, str, Result, Word, int]] = [
    ("all is well", GOOD, "win.human", Result.PASSED, Word.SHIP, 0),
    # hard suites
    ("no suite", replace(GOOD, suites=GONE), "suites", Result.MISSING, Word.HOLD, 4),
    ("an empty suite", replace(GOOD, suites=()), "suites", Result.MISSING, Word.HOLD, 4),
    ("one failure", checked(passed=399, failed=1), "suite.json@1", Result.FAILED, Word.BLOCK, 1),
    ("a warning", checked(Severity.WARN, failed=1), "suite.json@1", Result.FAILED, Word.HOLD, 4),
    ("a count", checked(Severity.INFO, failed=1), "suite.json@1", Result.FAILED, Word.SHIP, 0),
    ("a check that crashed", checked(unjudged=1), "suite.json@1", Result.MISSING, Word.HOLD, 4),
    ("a check of nothing", checked(passed=0), "suite.json@1", Result.MISSING, Word.HOLD, 4),
    # guards
    ("a guard unmeasured", without("refusal.harmless"), "guard.refusal.harmless", Result.MISSING, Word.HOLD, 4),
    ("an optional guard unmeasured", without("cost.ratio"), "guard.cost.ratio", Result.MISSING, Word.SHIP, 0),
    ("a guard without number", with_measure("refusal.harmless", None, missing="no harmless prompt"),
     "guard.refusal.harmless", Result.MISSING, Word.HOLD, 4),
    ("a guard that is NaN", with_measure("refusal.harmless", about(math.nan)),
     "guard.refusal.harmless", Result.MISSING, Word.HOLD, 4),
    ("a guard at a lower level", with_measure("cost.ratio", replace(about(1.0), level=0.8)),
     "guard.cost.ratio", Result.MISSING, Word.HOLD, 4),
    ("a guard without limit", with_measure("refusal.harmless", replace(about(0.0), high=math.inf)),
     "guard.refusal.harmless", Result.UNCLEAR, Word.HOLD, 4),
    ("a guard astride", with_measure("refusal.harmless", about(0.015)),
     "guard.refusal.harmless", Result.UNCLEAR, Word.HOLD, 4),
    ("a guard at its limit", with_measure("refusal.harmless", replace(about(0.0), high=0.02)),
     "guard.refusal.harmless", Result.PASSED, Word.SHIP, 0),
    ("more refusals", with_measure("refusal.harmless", about(0.05)),
     "guard.refusal.harmless", Result.FAILED, Word.BLOCK, 1),
    ("fewer refusals of harm", with_measure("refusal.harmful", about(-0.05)),
     "guard.refusal.harmful", Result.FAILED, Word.BLOCK, 1),
    ("an optional guard broken", with_measure("cost.ratio", about(2.0)),
     "guard.cost.ratio", Result.FAILED, Word.BLOCK, 1),
    # what people prefer
    ("no preference", replace(GOOD, preference=GONE), "win.human", Result.MISSING, Word.HOLD, 4),
    ("rate refused", prefers(corrected=REFUSED), "win.human", Result.MISSING, Word.HOLD, 4),
    ("rate unclear", prefers(corrected=about(0.51, 0.02)), "win.human", Result.UNCLEAR, Word.HOLD, 4),
    ("lower end on a half", prefers(corrected=replace(about(0.52), low=0.5)),
     "win.human", Result.UNCLEAR, Word.HOLD, 4),
    ("shown worse", prefers(corrected=about(0.40, 0.02)), "win.human", Result.FAILED, Word.BLOCK, 1),
    ("equal length refused", prefers(controlled=REFUSED), "win.equal_length", Result.MISSING, Word.HOLD, 4),
    ("equal length unclear", prefers(controlled=about(0.5)), "win.equal_length", Result.UNCLEAR, Word.HOLD, 4),
    ("equal length worse", prefers(controlled=about(0.4)), "win.equal_length", Result.FAILED, Word.BLOCK, 1),
    ("lengths are equal", prefers(controlled=None), "win.equal_length", Result.PASSED, Word.SHIP, 0),
    # segments
    ("segments refused", prefers(segments=REFUSED), "segments", Result.MISSING, Word.HOLD, 4),
    ("no segment has labels", prefers(segments=(Segment("category=a", 9, 3, None),)),
     "segments", Result.MISSING, Word.HOLD, 4),
    ("a losing segment", prefers(segments=(LOSING,)), "segments.category=a", Result.FAILED, Word.BLOCK, 1),
    ("a segment that may lose", prefers(segments=(replace(LOSING, q=0.2),)),
     "segments", Result.PASSED, Word.SHIP, 0),
    ("a winning segment", prefers(segments=(replace(LOSING, rate=about(0.6)),)),
     "segments", Result.PASSED, Word.SHIP, 0),
    # probes and canaries
    ("no probe", without("probe.boilerplate"), "probes", Result.MISSING, Word.HOLD, 4),
    ("a probe without number", with_measure("probe.boilerplate", None),
     "probe.boilerplate", Result.MISSING, Word.HOLD, 4),
    ("a probe astride", with_measure("probe.echo", about(0.05)), "probe.echo", Result.UNCLEAR, Word.HOLD, 4),
    ("a fooled judge", with_measure("probe.echo", about(0.2)), "probe.echo", Result.FAILED, Word.HOLD, 4),
    ("a probe at a lower level", with_measure("probe.echo", replace(about(0.0), level=0.8)),
     "probe.echo", Result.MISSING, Word.HOLD, 4),
    ("an old probe", replace(GOOD, probed=replace(PROBED, days=91.0)), "probes.age", Result.MISSING, Word.HOLD, 4),
    ("a probe to the day", replace(GOOD, probed=replace(PROBED, days=90.0)),
     "probes.age", Result.PASSED, Word.SHIP, 0),
    ("a probe of unknown age", replace(GOOD, probed=replace(PROBED, days=math.nan)),
     "probes.age", Result.MISSING, Word.HOLD, 4),
    ("a probe from the future", replace(GOOD, probed=replace(PROBED, days=-2.0)),
     "probes.age", Result.MISSING, Word.HOLD, 4),
    ("a probe that nobody names", replace(GOOD, probed=None), "probes.age", Result.MISSING, Word.HOLD, 4),
    ("a trick without verdicts", replace(GOOD, probed=replace(PROBED, silent={"boilerplate": (0, 50), "x": (3, 50)})),
     "probes.invalid", Result.FAILED, Word.HOLD, 4),
    ("a trick that was not asked", replace(GOOD, probed=replace(PROBED, silent={"echo": (0, 0), "x": (0, 50)})),
     "probes.asked", Result.MISSING, Word.HOLD, 4),
    ("no trick asked", replace(GOOD, probed=replace(PROBED, silent={"echo": (0, 0), "x": (0, 0)})),
     "probes.asked", Result.MISSING, Word.HOLD, 4),
    ("a probe silent about its silence", replace(GOOD, probed=replace(PROBED, silent={})),
     "probes.invalid", Result.MISSING, Word.HOLD, 4),
    ("canaries without a verdict", replace(GOOD, canaries=Canaries(6, silent="no verdict")),
     "canaries", Result.MISSING, Word.HOLD, 4),
    ("no canaries", replace(GOOD, canaries=GONE), "canaries", Result.MISSING, Word.SHIP, 0),
    ("a canary failed", replace(GOOD, canaries=Canaries(20, ("c1",))), "canaries", Result.FAILED, Word.HOLD, 3),
    ("none of no canaries", replace(GOOD, canaries=Canaries(0)), "canaries", Result.FAILED, Word.HOLD, 4),
    # the judge
    ("an unknown judge", replace(GOOD, standing=GONE), "judge.belief", Result.MISSING, Word.HOLD, 4),
    ("an uncalibrated judge", stands(calibration=GONE), "judge.calibration", Result.MISSING, Word.HOLD, 4),
    ("an old calibration", stands(calibration=replace(FITTED, days=91.0)),
     "judge.calibration", Result.MISSING, Word.HOLD, 4),
    ("a calibration of unknown age", stands(calibration=replace(FITTED, days=math.nan)),
     "judge.calibration", Result.MISSING, Word.HOLD, 4),
    ("a calibration to the day", stands(calibration=replace(FITTED, days=90.0)),
     "judge.calibration", Result.PASSED, Word.SHIP, 0),
    ("no belief", stands(word="DO NOT BELIEVE"), "judge.belief", Result.FAILED, Word.HOLD, 4),
    ("belief unknown", stands(word="UNKNOWN"), "judge.belief", Result.MISSING, Word.HOLD, 4),
    ("belief with care", stands(word="WITH CARE"), "judge.belief", Result.PASSED, Word.SHIP, 0),
    ("a coin", stands(accuracy=about(0.5)), "judge.belief", Result.FAILED, Word.HOLD, 4),
    ("no accuracy", stands(accuracy=None), "judge.belief", Result.FAILED, Word.HOLD, 4),
    ("no anchors", stands(moved=GONE), "judge.anchors", Result.MISSING, Word.SHIP, 0),
    ("a judge that moved", stands(moved=("preference",)), "judge.anchors", Result.FAILED, Word.HOLD, 4),
    # the run
    ("not sealed", runs(sealed=False), "run.complete", Result.MISSING, Word.HOLD, 3),
    ("pairs are missing", runs(judged=999), "run.complete", Result.MISSING, Word.HOLD, 3),
    ("an empty run", runs(pairs=0, judged=0, invalid=0), "run.complete", Result.MISSING, Word.HOLD, 3),
    ("many invalid", runs(invalid=51), "run.invalid", Result.FAILED, Word.HOLD, 3),
    ("rows were skipped", runs(left_out=60), "run.invalid", Result.FAILED, Word.HOLD, 3),
    ("invalid to the limit", runs(invalid=50), "run.invalid", Result.PASSED, Word.SHIP, 0),
    ("an old run", runs(days=31), "run.age", Result.MISSING, Word.HOLD, 4),
    ("a run from tomorrow's clock", runs(days=-0.5), "run.age", Result.PASSED, Word.SHIP, 0),
    ("a run from the future", runs(days=-40.0), "run.age", Result.MISSING, Word.HOLD, 4),
    ("a run of unknown age", runs(days=math.nan), "run.age", Result.MISSING, Word.HOLD, 4),
]  # fmt: skip


@pytest.mark.parametrize(
    ("evidence", "rule", "result", "word", "code"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_truth_table(evidence: Evidence, rule: str, result: Result, word: Word, code: int) -> None:
    """Each rule in each of its states gives the ruling, the decision and the exit code that the table says."""
    decision = decide(DEFAULT, evidence)
    (ruling,) = [ruling for ruling in decision.rulings if ruling.rule == rule]
    assert (ruling.result, decision.word, decision.exit_code) == (result, word, code), ruling.says
    assert (ruling.result is Result.PASSED) <= (ruling.effect is Word.SHIP)
    assert ruling.says
    if ruling.effect is not Word.SHIP:
        assert ruling.change, "what stands in the way says what would change it"


def test_the_table_has_every_rule_in_every_result() -> None:
    """The truth table leaves out no rule of a decision on good evidence, and every rule is there not passing."""
    everything = {ruling.rule for ruling in decide(DEFAULT, GOOD).rulings}
    shown = {row[2] for row in TABLE}
    guards = {name for name in everything if name.startswith("guard.")}
    assert everything - guards - {"probe.boilerplate"} <= shown
    assert {row[3] for row in TABLE if row[2].startswith("guard.")} == set(Result)
    not_passed = {row[2] for row in TABLE if row[3] is not Result.PASSED}
    assert {rule for rule in everything - guards if rule not in not_passed} == set()


@pytest.mark.parametrize("row", [row for row in TABLE if row[3] is Result.MISSING], ids=lambda row: str(row[0]))
def test_under_missing_block_nothing_missing_holds(row: tuple[str, Evidence, str, Result, Word, int]) -> None:
    """With `missing: block` what is required and missing blocks, unless the run itself gives no verdict (exit 3)."""
    policy = DEFAULT.model_copy(update={"missing": "block"})
    decision = decide(policy, row[1])
    expected = Word.SHIP if row[4] is Word.SHIP else Word.HOLD if row[5] == 3 else Word.BLOCK
    assert decision.word is expected


def test_a_decision_is_the_worst_of_its_rulings() -> None:
    """Of any two troubles together the worse decides."""
    order = {Word.SHIP: 0, Word.HOLD: 1, Word.BLOCK: 2}
    fields = [field.name for field in dataclasses.fields(Evidence)]
    for one, two in itertools.combinations(TABLE, 2):
        changed = [
            {name: getattr(row[1], name) for name in fields if getattr(row[1], name) is not getattr(GOOD, name)}
            for row in (one, two)
        ]
        if changed[0].keys() & changed[1].keys():
            continue
        decision = decide(DEFAULT, replace(GOOD, **changed[0], **changed[1]))
        worst = max(order[one[4]], order[two[4]])
        voided = 3 in (one[5], two[5])
        if voided and order[decision.word] < worst:  # a void run's preferences count for nothing, not even against it
            assert decision.exit_code == 3
        else:
            assert order[decision.word] == worst, (one[0], two[0])
            assert (decision.exit_code == 3) == (voided and decision.word is Word.HOLD)


@given(st.lists(st.sampled_from(TABLE), min_size=1, max_size=6))
def test_no_mixture_ships_with_a_required_rule_open(rows: list[tuple[str, Evidence, str, Result, Word, int]]) -> None:
    """Whatever evidence is mixed, SHIP means that every ruling passed or is one the policy does not require."""
    evidence = GOOD
    for row in rows:
        for entry in dataclasses.fields(Evidence):
            if getattr(row[1], entry.name) is not getattr(GOOD, entry.name):
                evidence = replace(evidence, **{entry.name: getattr(row[1], entry.name)})
    decision = decide(DEFAULT, evidence)
    if decision.word is Word.SHIP:
        assert decision.exit_code == 0
        for ruling in decision.rulings:
            free = "not required" in ruling.says or ruling.rule.startswith("suite.")
            assert ruling.result is Result.PASSED or free
    else:
        assert decision.standing_in_the_way
    assert Decision.from_dict(json.loads(json.dumps(decision.to_dict()))) == decision


def test_a_void_run_never_uses_its_preferences() -> None:
    """In a void run the win rates are withheld, good or bad, and only hard checks may still block it."""
    bad = replace(GOOD, canaries=Canaries(20, ("c1",)), preference=replace(PREFERENCE, corrected=about(0.3)))
    decision = decide(DEFAULT, bad)
    assert (decision.word, decision.exit_code) == (Word.HOLD, 3)
    assert {ruling.result for ruling in decision.rulings if ruling.rule.startswith(("win.", "segments"))} == {
        Result.MISSING
    }
    broken = replace(bad, suites=(Hard("json@1", "reliability", Severity.BLOCK, passed=1, failed=2),))
    assert decide(DEFAULT, broken).exit_code == 1


def test_nothing_known_never_ships() -> None:
    """A gate that knows nothing at all holds, names what is missing, and under the strict policy blocks."""
    nothing = replace(GOOD, suites=GONE, measures={}, preference=GONE, canaries=GONE, standing=GONE, unmeasured={})
    assert decide(DEFAULT, nothing).word is Word.HOLD
    assert decide(STRICT, nothing).word is Word.BLOCK
    assert len(decide(DEFAULT, nothing).of(Result.MISSING)) >= 10


def test_hold_says_how_many_labels() -> None:
    """An unclear rate says how many labels give the policy's power: some more, too many for the run, or none."""
    more = prefers(corrected=about(0.53, 0.04), labels=300, labels_wanted=570)
    decision = decide(DEFAULT, more)
    assert decision.more_labels == 270
    assert "270 more labels give 80% power for +3 pp" in decision.headline
    assert any("label 270 more pairs" in need for need in decision.needs)
    beyond = decide(DEFAULT, prefers(corrected=about(0.53, 0.04), labels_wanted=None, pairs_wanted=2200))
    assert any("judge about 1200 more pairs" in need for need in beyond.needs)
    enough = decide(DEFAULT, prefers(corrected=about(0.51, 0.02), labels=400, labels_wanted=380))
    assert any("label about 1200 more pairs if the gain is +1.0 pp" in need for need in enough.needs)
    assert decide(DEFAULT, GOOD).more_labels is None


def test_what_a_check_cannot_classify_is_read_and_not_run_again() -> None:
    """An answer that a check was tried on and could not be made on is named; running the check again helps nobody."""
    decision = decide(DEFAULT, checked(passed=29, unjudged=1, unseen=("p7",)))
    (ruling,) = (ruling for ruling in decision.rulings if ruling.rule == "suite.json@1")
    assert (ruling.result, ruling.pairs) == (Result.MISSING, ("p7",))
    assert ruling.change.startswith("read p7: json@1 cannot tell there (`judge check r-1` shows why)")


def test_a_guard_beyond_its_limit_names_answers_and_the_command_that_shows_them() -> None:
    """What would change a guard is said by answers to read, not by its own rule again."""
    for name, command in (("refusal.harmless", "judge view r-1"), ("citations.invented", "judge view r-1")):
        decision = decide(DEFAULT, with_measure(name, about(0.5, 0.02), examples=("p1", "p2")))
        (ruling,) = (ruling for ruling in decision.rulings if ruling.rule == f"guard.{name}")
        assert ruling.result is Result.FAILED
        assert f"read the answers behind {name} (p1, p2 first)" in ruling.change
        assert command in ruling.change
    few = decide(DEFAULT, with_measure("citations.invented", about(0.5, 1.0, 1)))
    assert any("only 1 prompt measures citations.invented" in need for need in few.needs)


def test_no_advice_asks_for_what_nobody_can_do() -> None:
    """More than ten times what was measured or judged is no advice: the need says so, without a number of prompts."""
    near = decide(DEFAULT, with_measure("refusal.harmless", about(0.019, 0.01)))
    (need,) = near.needs
    assert "no realistic number of prompts settles it (over 10 times the 1000 measured)" in need
    assert not any("more prompts" in need for need in near.needs)
    few = decide(DEFAULT, with_measure("refusal.harmless", about(0.0, 0.9, 6)))
    assert few.needs == ("only 6 prompts measure refusal.harmless: measure it on a set made for it, with some hundred",)
    wide = about(0.55, 0.06, 100)
    far = prefers(corrected=wide, labels=100, judged=100, labels_wanted=None, pairs_wanted=2200)
    (need,) = decide(DEFAULT, far).needs
    assert need.startswith("no realistic number of pairs gives 80% power to see +3.0 pp: 2200 labels in all")
    assert need.endswith("if the gain is +5.0 pp, as it seems, about 44 more labelled pairs do")
    small = prefers(corrected=about(0.502, 0.02), labels=400, labels_wanted=380)
    (need,) = decide(DEFAULT, small).needs
    assert "no realistic number of labels shows so small a gain" in need


def test_what_is_missing_names_the_measure_the_report_and_the_column() -> None:
    """A guard without evidence says which command makes it; thin segments say by which columns and how thin."""
    thin = prefers(segments=(Segment("category=a", 9, 3, None), Segment("category=b", 9, 8, None)))
    (ruling,) = [ruling for ruling in decide(DEFAULT, thin).rulings if ruling.rule == "segments"]
    assert ruling.says == "no segment by category has 20 labels (most: category=b with 8)"
    assert "segments.by" in ruling.change
    gone = replace(without("refusal.harmful"), unmeasured={"refusal": Missing("no hacking report", "judge hack r-1")})
    assert decide(DEFAULT, gone).needs == ("for refusal.harmful: judge hack r-1",)
    silent = with_measure("refusal.harmful", None, missing="no item says that refusing is right")
    assert decide(DEFAULT, silent).needs == (
        "for refusal.harmful: give prompts that must be refused metadata `must_refuse: true`, then judge them",
    )
    (guard,) = [guard for guard in DEFAULT.guards if guard.measure == "latency.p95_ratio"]
    timed = DEFAULT.model_copy(update={"guards": (guard.model_copy(update={"required": True}),)})
    unsaid = with_measure("latency.p95_ratio", None, missing="no pair has a latency on both sides")
    assert "`latency_ms`" in decide(timed, unsaid).needs[0]


def test_a_longer_answer_is_not_a_better_one() -> None:
    """A raw win that vanishes at equal length while answers grew holds, and the headline says so."""
    longer = prefers(controlled=about(0.51, 0.04), log_length=about(math.log(1.22), 0.03))
    decision = decide(DEFAULT, longer)
    assert decision.word is Word.HOLD
    assert "+22% [+18, +26] longer in characters: longer, not shown better" in decision.headline


def test_zero_failures_of_few_answers_are_not_enough_for_a_bound() -> None:
    """0 of n leave 3/n open: under a bound of 2% 100 clean answers hold and 150 pass."""
    policy = STRICT.model_copy(update={"guards": ()})
    for passed, result in ((100, Result.UNCLEAR), (150, Result.PASSED)):
        ruling = next(r for r in decide(policy, checked(passed=passed)).rulings if r.rule == "suite.json@1")
        assert ruling.result is result
        assert ruling.observed is not None
        assert ruling.observed.high == pytest.approx(3 / passed, rel=0.02)
    assert "149" not in str(decide(policy, checked(passed=100)).needs)
    assert any("check 49 more answers" in need for need in decide(policy, checked(passed=100)).needs)


def test_a_check_that_the_policy_names_must_have_been_made() -> None:
    """A named check is asked for by name or by name and version."""
    suites = DEFAULT.suites.model_copy(update={"checks": ("json", "tools@2")})
    decision = decide(DEFAULT.model_copy(update={"suites": suites}), GOOD)
    assert [ruling.rule for ruling in decision.standing_in_the_way] == ["suites.tools@2"]


def test_protected_segments_have_a_limit_of_their_own() -> None:
    """A protected segment passes only above its margin; one that is not there or has no labels holds."""
    rules = DEFAULT.segments.model_validate(
        {"by": ["category"], "protect": [{"segment": "category=a", "margin": 0.05}, {"segment": "x=y", "margin": 0.1}]}
    )
    decision = decide(DEFAULT.model_copy(update={"segments": rules}), GOOD)
    found = {ruling.rule: ruling.result for ruling in decision.rulings if ruling.rule.startswith("protect.")}
    assert found == {"protect.category=a": Result.PASSED, "protect.x=y": Result.MISSING}
    near = replace(LOSING, rate=about(0.46, 0.03), q=0.9)
    found_near = decide(DEFAULT.model_copy(update={"segments": rules}), prefers(segments=(near,)))
    assert next(r for r in found_near.rulings if r.rule == "protect.category=a").result is Result.UNCLEAR


def test_a_probe_s_win_rate_never_stands_for_its_shift() -> None:
    """A probe that gave no shift is missing although it says how often the trick won outright."""
    won = replace(measure("probe.echo", None), candidate=about(0.0))
    decision = decide(DEFAULT, replace(GOOD, measures={**GOOD.measures, "probe.echo": won}))
    assert decision.word is Word.HOLD
    assert next(ruling for ruling in decision.rulings if ruling.rule == "probe.echo").result is Result.MISSING


def test_what_is_stale_says_how_old_and_what_to_run() -> None:
    """An old probe and an old calibration name their age, the limit, and the command that makes them anew."""
    old = replace(stands(calibration=replace(FITTED, days=120.0)), probed=replace(PROBED, days=100.0))
    decision = decide(DEFAULT, old)
    said = {ruling.rule: (ruling.says, ruling.change) for ruling in decision.standing_in_the_way}
    assert said["probes.age"] == (
        "probe run r-9 is 100 days old; at most 90 are allowed",
        "probe the judge anew: judge probe evals.jsonl",
    )
    assert said["judge.calibration"] == (
        "the verdicts behind calibration 1 are 120 days old; at most 90 are allowed",
        "calibrate anew: judge calibrate r-1 --gold labels.jsonl",
    )
    assert set(decision.needs) == {change for _, change in said.values()}


def test_a_trick_that_was_not_asked_says_so_and_is_no_share() -> None:
    """0 of 0 comparisons are no silence of the judge: the trick is missing by name, the others keep their figure."""
    decision = decide(DEFAULT, replace(GOOD, probed=replace(PROBED, silent={"echo": (0, 0), "x": (1, 50)})))
    said = {ruling.rule: ruling for ruling in decision.rulings}
    assert said["probes.asked"].says == "echo was not asked in probe run r-9"
    assert said["probes.asked"].change == "probe anew: judge probe evals.jsonl"
    assert (said["probes.invalid"].result, said["probes.invalid"].says.split(" (")[0]) == (
        Result.PASSED, "1 of 50 comparisons of x have no verdict",
    )  # fmt: skip


def test_a_policy_written_before_these_limits_decides_as_it_did() -> None:
    """Without limits on age and silence a policy rules on neither, and an old calibration that fits passes."""
    text = DEFAULT.text.replace("name: default\n", "name: older\n").replace("  calibration_days: 90\n", "")
    text = text.replace("  days: 90\n  invalid_at_most: 0.05\n", "")
    older = load_policy_text(text, where="a decision")
    assert not {"days", "invalid_at_most"} & older.probes.model_fields_set
    old = replace(
        stands(calibration=replace(FITTED, days=math.nan)), probed=replace(PROBED, days=900.0, silent={"echo": (9, 10)})
    )
    assert decide(DEFAULT, old).word is Word.HOLD
    decision = decide(older, old)
    assert decision.word is Word.SHIP
    rules = {ruling.rule: ruling.says for ruling in decision.rulings}
    assert not {"probes.age", "probes.invalid"} & set(rules)
    assert rules["judge.calibration"] == "calibration 1 was fitted for helpfulness@1 and judge@1"


def test_layers_and_axes_stay_apart() -> None:
    """Every ruling names one layer and one axis, and no decision carries a number of its own."""
    decision = decide(DEFAULT, GOOD)
    assert {ruling.layer for ruling in decision.rulings} <= {"preference", "behaviour", "evidence"}
    assert {ruling.axis for ruling in decision.rulings} <= {"capability", "reliability", "safety"}
    assert not any(isinstance(getattr(decision, entry.name), float) for entry in dataclasses.fields(decision))


def test_a_damaged_decision_is_refused() -> None:
    """What is not a decision is no decision."""
    with pytest.raises(InputError, match="not a decision"):
        Decision.from_dict({"word": "SHIP"})


# --- policies --------------------------------------------------------------------------------------------------------


def test_shipped_policies_are_frozen() -> None:
    """Each shipped policy has the digest of judge/gates/frozen.json."""
    assert shipped_policies() == ("default", "strict")
    assert all(load_policy(name).frozen for name in shipped_policies())
    assert {load_policy(name).ref: load_policy(name).digest for name in shipped_policies()} == policy_digests()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("at_most: 0.02\n  - measure: refusal.harmful", "at_mots: 0.02\n  - measure: refusal.harmful",
         r":15: guards.0.at_mots: unknown key; did you mean `at_most`\?"),
        ("  alpha:", "  alfa:", r"rollout.alfa: unknown key; did you mean `alpha`\?"),
        ("missing: hold", "missing: pass", "Input should be 'hold' or 'block'"),
        ("detect: 0.03", "detect: .nan", "win.detect: Input should be a valid number"),
        ("at_least: -0.02", "at_least: -0.02\n    at_most: 1.0", "exactly one of at_most and at_least"),
        ("  goal: better", "  goal: not_worse", "needs a margin above 0"),
        ("name: shadow", "name: dark", "Input should be 'shadow'"),
        ("measure: tokens.ratio", "measure: length.log_ratio", "held to the same side twice"),
        ("name: default\nversion: 2", "version: 2", "name: missing; add `name:`"),
        ("version: 2", "version: 2\nversion: 3", "given twice"),
        ("missing: hold", "missing: hold\nwin: &x {goal: better}", "anchors and aliases"),
    ],
)  # fmt: skip
def test_a_faulty_policy_names_file_line_and_fix(tmp_path: Any, old: str, new: str, says: str) -> None:
    """A misspelt key or a value out of range is one error with its place, and nothing is decided."""
    path = tmp_path / "mine.yaml"
    text = DEFAULT.text.replace("name: default", "name: mine") if old != "name: default\nversion: 2" else DEFAULT.text
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=says) as caught:
        load_policy(path)
    assert str(caught.value).startswith(f"{path}:")


def test_an_edited_policy_is_refused_under_its_old_name(tmp_path: Any) -> None:
    """Another text under a frozen name@version is refused, beside a frozen.json and under a shipped name anywhere."""
    path = tmp_path / "prod.yaml"
    path.write_text(DEFAULT.text.replace("name: default", "name: prod"), encoding="utf-8")
    mine: Policy = load_policy(path)
    assert not mine.frozen
    (tmp_path / "frozen.json").write_text(json.dumps({mine.ref: mine.digest}), encoding="utf-8")
    assert load_policy(path).frozen
    path.write_text(path.read_text(encoding="utf-8").replace("at_most: 0.02", "at_most: 0.2"), encoding="utf-8")
    with pytest.raises(InputError, match="prod@2 is frozen with another text"):
        load_policy(path)
    other = tmp_path / "elsewhere" / "default.yaml"
    other.parent.mkdir()
    other.write_text(DEFAULT.text.replace("at_most: 0.02", "at_most: 0.2"), encoding="utf-8")
    with pytest.raises(InputError, match="name of a shipped policy"):
        load_policy(other)
    with pytest.raises(InputError, match="did you mean 'default'"):
        load_policy("defualt")


def test_the_difference_of_lengths_is_held_as_a_logarithm_and_said_in_percent() -> None:
    """A guard on `length.log_ratio` of 0.2231 reads as 25% longer, and so do the interval and the measured end."""
    from judge.limits import interval_words
    from judge.render.words import unit_of

    found = Estimate(math.log(1.3), math.log(0.97), math.log(1.73), 0.95, 108, 108, "t")
    assert interval_words(found, 0.2231, "at most", unit_of("length.log_ratio", "characters", "difference")) == (
        "+30.0% [-3.0, +73.0]: upper bound +73.0%, must be at most +25.0% (n = 108)"
    )


@pytest.mark.parametrize(
    ("name", "unit", "said"),
    [
        ("length.log_ratio", "characters", "+22.1% [+10.5, +35.0]"),
        ("length.log_ratio", "ln", "+22.1% [+10.5, +35.0]"),
        ("length.cut", "share", "+20.0 pp [+10.0, +30.0]"),
        ("length.words_ratio", "ratio of words", "0.200 [0.100, 0.300]"),
        ("refusal.must_help", "share refusing", "+20.0 pp [+10.0, +30.0]"),
        ("hedging.rate", "per 100 words", "+0.200 [+0.100, +0.300]"),
    ],
)
def test_a_difference_is_written_alike_by_gate_report_and_page(name: str, unit: str, said: str) -> None:
    """Only logarithms of lengths read as percent longer: no share and no ratio whose name begins with ``length``."""
    from dashboard.screens.hacking import _gap
    from judge.limits import interval_words
    from judge.render.hacking import gap_words
    from judge.render.words import plain, unit_of
    from judge.types import Measure

    found = Estimate(0.2, 0.1, 0.3, 0.95, 90, 90, "t")
    measure = Measure(name, "behaviour", "reliability", unit, difference=found)
    assert interval_words(found, 0.4, "at most", unit_of(name, unit, "difference")).startswith(f"{said}: ")
    assert " ".join(gap_words(measure)) == said
    assert " ".join(_gap(plain(measure), unit)) == said


@pytest.mark.parametrize("end", [20.0, 709.0, 800.0, 1e9])
def test_a_length_beyond_all_measure_is_said_and_no_error(end: float) -> None:
    """An empty answer against a long one: gate, guard and hack report say the same words, also where no float holds
    the ratio.
    """
    from judge.gate import _percent_longer
    from judge.limits import interval_words
    from judge.render.hacking import gap_words
    from judge.types import Measure

    found = Estimate(math.log(1.3), -end, end, 0.95, 3, 3, "t")
    assert _percent_longer(found) == "+30% [-100, over +9999]"
    assert interval_words(found, 0.2231, "at most", "ln") == (
        "+30.0% [-100.0, over +9999]: upper bound over +9999%, must be at most +25.0% (n = 3)"
    )
    measure = Measure("length.log_ratio", "behaviour", "reliability", "characters", difference=found)
    assert gap_words(measure) == ("+30.0%", "[-100.0, over +9999]")
    endless = replace(found, low=-math.inf, high=math.inf)
    assert gap_words(replace(measure, difference=endless)) == ("+30.0%", "[-100.0, no limit]")
