"""A new rubric or judge against the old one: the values, the rule, the error rates, and every awkward input."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.agreement import ORDER
from calibration.change import Change, Side, compare_judges, detectable_difference, pairs_needed
from calibration.coefficients import cohen_kappa
from calibration.gold import GoldItem, GoldLabel, GoldSet
from calibration.reliability import log_losses
from rubrics import Outcome
from rubrics.errors import InputError

W, T, L = Outcome.WIN, Outcome.TIE, Outcome.LOSS
SOFT = {W: 0.9, T: 0.5, L: 0.1}


def gold_of(outcomes: list[Outcome], *, per_prompt: int = 1) -> GoldSet:
    """One label a pair, ``per_prompt`` pairs a prompt."""
    return GoldSet(
        tuple(
            GoldItem(f"p{k:04}", f"q{k // per_prompt}", (GoldLabel("ann", outcome),), category="ab"[k % 2])
            for k, outcome in enumerate(outcomes)
        )
    )


def side(name: str, verdicts: list[Outcome | None], **more) -> Side:
    """A side under its own rubric that says ``verdicts`` in order, with preferences to match."""
    said = {f"p{k:04}": verdict for k, verdict in enumerate(verdicts)}
    soft = {pair: None if verdict is None else SOFT[verdict] for pair, verdict in said.items()}
    return Side(
        **({"name": name, "rubric": f"help@{name}", "judge": "j", "verdicts": said, "preferences": soft} | more)
    )


def case(both: int, only_new: int, only_old: int, neither: int = 0, **more) -> tuple[Side, Side, GoldSet]:
    """Two sides with this many pairs right by both, one and neither; wins and losses alternate among humans."""
    human = [W if k % 2 else L for k in range(both + only_new + only_old + neither)]
    marks = [(1, 1)] * both + [(0, 1)] * only_new + [(1, 0)] * only_old + [(0, 0)] * neither
    old, new = ([h if mark[place] else h.mirrored for h, mark in zip(human, marks, strict=True)] for place in (0, 1))
    return side("1", old), side("2", new, **more), gold_of(human)


def noisy(rng: np.random.Generator, human: list[Outcome], accuracy: float) -> list[Outcome]:
    """Verdicts that are right with this chance."""
    return [h if rng.random() < accuracy else h.mirrored for h in human]


def test_mcnemar_of_twelve_against_three():
    """12 against 3 discordant pairs: exact p .035156, mid-p .021271, equal to statsmodels, difference (12 - 3)/n."""
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    found = compare_judges(*case(80, 12, 3, 5))
    theirs = contingency.mcnemar([[80, 3], [12, 5]], exact=True)
    assert (found.mcnemar.only_first, found.mcnemar.only_second) == (12, 3)
    assert found.mcnemar.p_exact == pytest.approx(0.035156, abs=5e-7) == theirs.pvalue
    assert found.mcnemar.p_mid == pytest.approx(0.021271, abs=5e-7)
    assert found.difference.value == pytest.approx(0.09)
    assert (found.accuracy_old.value, found.accuracy_new.value) == pytest.approx((0.83, 0.92))
    assert (found.verdict, found.finding) == ("ADOPT", "better")


def test_the_difference_is_the_paired_t_of_statsmodels():
    """Interval of the accuracy difference: the clustered t interval of an intercept-only regression."""
    api = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(0)
    human = [W if rng.random() < 0.6 else L for _ in range(200)]
    old, new, gold = side("1", noisy(rng, human, 0.7)), side("2", noisy(rng, human, 0.8)), gold_of(human, per_prompt=4)
    found = compare_judges(old, new, gold)
    right = [np.array([float(s.verdicts[i.pair_id] == i.majority) for i in gold.items]) for s in (old, new)]
    fit = api.OLS(right[1] - right[0], np.ones(200)).fit(
        cov_type="cluster", cov_kwds={"groups": np.arange(200) // 4, "use_correction": False}, use_t=True
    )
    se = float(fit.bse[0]) * math.sqrt(50 / 49)
    from scipy.stats import t

    assert found.difference.value == pytest.approx(float(fit.params[0]))
    assert found.difference.high - found.difference.value == pytest.approx(t.ppf(0.975, 49) * se)
    assert (found.difference.n, found.difference.clusters, found.prompts) == (200, 50, 50)
    assert any("one prompt as independent" in note for note in found.notes)


def test_equivalence_equals_statsmodels():
    """The two one-sided tests give the p value of ``ttost_paired``."""
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    old, new, gold = case(300, 6, 5, 40)
    found = compare_judges(old, new, gold, margin=0.03)
    right = [np.array([float(s.verdicts[i.pair_id] == i.majority) for i in gold.items]) for s in (old, new)]
    theirs = weightstats.ttost_paired(right[1], right[0], -0.03, 0.03)[0]
    assert found.equivalence.p == pytest.approx(float(theirs))
    assert found.equivalence.equivalent and found.finding == "equivalent"


@pytest.mark.parametrize(
    ("counts", "costs", "expected"),
    [
        ((80, 12, 3, 5), (1.0, 9.0), ("ADOPT", "better")),
        ((80, 3, 12, 5), (1.0, 0.1), ("KEEP", "worse")),
        ((900, 5, 5, 90), (1.0, 0.8), ("ADOPT", "equivalent")),
        ((900, 5, 5, 90), (1.0, 0.95), ("KEEP", "equivalent")),
        ((900, 5, 5, 90), (None, None), ("KEEP", "equivalent")),
        ((400, 20, 13, 67), (1.0, 0.5), ("ADOPT", "not worse")),
        ((400, 20, 13, 67), (1.0, 1.0), ("UNDECIDED", "not worse")),
        ((60, 12, 12, 16), (1.0, 0.1), ("UNDECIDED", "open")),
    ],
)
def test_rule(counts, costs, expected):
    """Every line of the rule: the finding, and what cost makes of it."""
    old, new, gold = case(*counts)
    found = compare_judges(replace(old, cost=costs[0]), replace(new, cost=costs[1]), gold)
    assert (found.verdict, found.finding) == expected
    assert (found.more_pairs is None) == (found.verdict != "UNDECIDED")
    assert found.reasons and str(found.compared) in found.reasons[0]


def test_four_to_nothing_of_a_hundred_is_not_called_better_by_its_interval_alone():
    """Where the t interval excludes zero on a handful of discordant pairs, mid-p McNemar has to agree."""
    found = compare_judges(*case(90, 4, 0, 6))
    assert found.difference.low > 0 or found.mcnemar.p_mid > 0.05
    assert found.finding != "better"


def test_type_one_error_stays_near_five_per_cent():
    """Two equally good judges: better or worse is found in about 5% of 600 comparisons, never equivalence by luck."""
    rng = np.random.default_rng(7)
    findings = [_simulated(rng, 0.0) for _ in range(600)]
    assert 0.02 <= np.mean([f in ("better", "worse") for f in findings]) <= 0.07
    assert "equivalent" not in findings


def test_power_is_as_planned():
    """With the planned number of pairs a true difference of .10 is found in about 80% of comparisons."""
    n = pairs_needed(0.1, 0.2)
    rng = np.random.default_rng(3)
    assert np.mean([_simulated(rng, 0.1, n=n) == "better" for _ in range(400)]) == pytest.approx(0.8, abs=0.06)


def _simulated(rng: np.random.Generator, gain: float, *, n: int = 150, discordant: float = 0.2) -> str:
    """The finding on n pairs that differ in ``discordant`` of them with a true difference of ``gain``."""
    from calibration.change import _Accuracy

    up, down = (discordant + gain) / 2, (discordant - gain) / 2
    a, b, c, d = rng.multinomial(n, [0.6, up, down, 0.4 - discordant])
    old, new, gold = case(int(a), int(b), int(c), int(d))
    return _Accuracy.of(gold.items, old, new, margin=0.02, level=0.95).finding


def test_sizes_by_the_formula_of_connor():
    """A difference of .05 at 20% discordant pairs needs 626; the detectable difference is its inverse."""
    assert pairs_needed(0.05, 0.2) == 626
    assert detectable_difference(626, 0.2) == pytest.approx(0.05, abs=1e-4)
    assert detectable_difference(10, 0.2) is None
    assert detectable_difference(10, 0.0) is None
    with pytest.raises(InputError, match="discordant share"):
        pairs_needed(0.3, 0.2)


def test_power_of_a_comparison():
    """The smallest difference these pairs could find, and the pairs that would settle the margin."""
    found = compare_judges(*case(300, 30, 30, 40), margin=0.05)
    assert found.power.discordant.value == pytest.approx(0.15)
    assert found.power.detectable == pytest.approx(detectable_difference(400, 61 / 402), abs=1e-9)
    assert found.power.pairs_needed == math.ceil((1.644854 + 1.281552) ** 2 * (61 / 402) / 0.05**2)
    open_ = compare_judges(*case(60, 12, 12, 16), margin=0.05)
    assert open_.more_pairs == open_.power.pairs_needed - 100
    assert f"about {open_.more_pairs} more labelled pairs" in open_.reasons[-1]


def test_more_pairs_past_the_plan_follow_the_difference_seen():
    """Undecided with more pairs than planned: the plan is redone for the difference seen, and asks for at least one."""
    found = compare_judges(*case(600, 22, 12, 66), margin=0.025)
    assert found.verdict == "UNDECIDED" and found.power.pairs_needed < 700 and found.more_pairs >= 1


def test_invalid_verdicts_are_counted_and_bounded():
    """Invalid and missing verdicts are counted by side; a finding that hangs on them is undecided."""
    old, new, gold = case(120, 15, 3, 12)
    said = dict(new.verdicts)
    said |= dict.fromkeys(sorted(said)[:20], None)
    del said["p0149"]
    found = compare_judges(old, replace(new, verdicts=said), gold)
    assert (found.invalid, found.missing, found.compared, found.labelled) == ((0, 20), (0, 1), 129, 150)
    assert found.finding == "better" and found.difference.value == pytest.approx(12 / 129)
    assert found.invalid_as_wrong.value == pytest.approx((12 - 20) / 149) and found.invalid_as_wrong.n == 149
    assert found.verdict == "UNDECIDED" and "invalid" in found.reasons[1]


def test_no_majority_is_counted_and_left_out():
    """Pairs on which humans split are in no figure, but counted."""
    old, new, gold = case(60, 5, 5)
    items = tuple(
        replace(i, labels=(GoldLabel("a", W), GoldLabel("b", L))) if k < 7 else i for k, i in enumerate(gold.items)
    )
    found = compare_judges(old, new, GoldSet(items))
    assert (found.no_majority, found.compared) == (7, 63)


def test_log_loss_and_kappa_differences_are_those_of_each_side():
    """Log loss and kappa differences equal new minus old of the figures computed one by one."""
    rng = np.random.default_rng(2)
    human = [(W, T, L)[rng.integers(3)] for _ in range(120)]
    sides = [side(str(k), noisy(rng, human, a)) for k, a in ((1, 0.6), (2, 0.9))]
    soft = {f"p{k:04}": float(p) for k, p in enumerate(rng.choice([0.0, 0.2, 0.8, 1.0], 120))}
    sides[1] = replace(sides[1], preferences=soft)
    found = compare_judges(*sides, gold_of(human))
    y = np.array([{W: 1.0, T: 0.5, L: 0.0}[h] for h in human])
    losses = [log_losses(np.array(list(s.preferences.values())), y).mean() for s in sides]
    kappas = [cohen_kappa(list(zip(human, s.verdicts.values(), strict=True)), ORDER).value for s in sides]
    assert found.log_loss.value == pytest.approx(losses[1] - losses[0])
    assert found.kappa.value == pytest.approx(kappas[1] - kappas[0])
    assert found.log_loss.low < found.log_loss.value < found.log_loss.high
    assert found.calibrated_log_loss.n == 120


def test_calibration_takes_away_what_is_only_over_confidence():
    """Two judges with equal verdicts, one far too sure: raw log loss differs, the cross-fitted one hardly."""
    rng = np.random.default_rng(5)
    human = [W if rng.random() < 0.5 else L for _ in range(200)]
    said = noisy(rng, human, 0.75)
    mild = {f"p{k:04}": 0.75 if v is W else 0.25 for k, v in enumerate(said)}
    sure = {pair: 0.999 if p > 0.5 else 0.001 for pair, p in mild.items()}
    found = compare_judges(side("1", said, preferences=mild), side("2", said, preferences=sure), gold_of(human))
    assert found.log_loss.low > 0.5
    assert abs(found.calibrated_log_loss.value) < 0.01


def test_flips_put_the_most_informative_first():
    """Flips where one side is right come before the rest, clear human labels and large moves first."""
    gold = gold_of([W, W, W, L, W])
    split = (GoldLabel("a", W), GoldLabel("b", W), GoldLabel("c", L))
    gold = GoldSet((replace(gold.items[0], labels=split), *gold.items[1:]))
    old = side("1", [L, L, T, L, L])
    new = side("2", [W, W, L, L, W])
    new = replace(new, preferences=new.preferences | {"p0004": 0.6})
    flips = compare_judges(old, new, gold).flips
    assert [(f.pair_id, f.right) for f in flips] == [
        ("p0001", "new"),
        ("p0004", "new"),
        ("p0000", "new"),
        ("p0002", "neither"),
    ]
    assert flips[0].moved == pytest.approx(0.8) and flips[0].category == "b" and flips[0].human is W


def test_anchors_show_the_shift_of_the_win_rate():
    """Mean preference new minus old on pairs judged twice, clustered by the prompts given, with the flip rate."""
    old, new, gold = case(40, 3, 3)
    before = {f"a{k}": 0.4 for k in range(40)}
    after = {f"a{k}": 0.4 + 0.2 * (k % 2) for k in range(40)} | {"extra": 0.5, "a39": None}
    found = compare_judges(
        replace(old, anchors=before, prompts={f"a{k}": f"q{k // 2}" for k in range(40)}),
        replace(new, anchors=after),
        gold,
    ).anchors
    assert found.shift.value == pytest.approx(0.2 * 19 / 39) and found.shift.clusters == 20
    assert found.flips.value == pytest.approx(19 / 39) and found.skipped == 1
    apart = compare_judges(replace(old, anchors=before), replace(new, anchors={"z": 0.5}), gold)
    assert apart.anchors is None and any("no anchor" in note for note in apart.notes)


def test_costs_are_compared_per_verdict():
    """Cost and tokens are divided by the verdicts they paid for; tokens decide where dollars are unknown."""
    old, new, gold = case(900, 5, 5, 90)
    extra = {f"x{k}": W for k in range(1000)}
    new = replace(new, verdicts=dict(new.verdicts) | extra, cost=1.0, tokens=500, seconds=3.0)
    found = compare_judges(replace(old, cost=1.0, tokens=1000, seconds=2.0), new, gold)
    assert (found.ratios.cost, found.ratios.tokens, found.ratios.seconds) == pytest.approx((0.5, 0.25, 1.5))
    assert found.ratios.saved == pytest.approx(0.5) and found.verdict == "ADOPT"
    free = compare_judges(replace(old, tokens=1000, cost=0.0), replace(new, cost=0.0), gold).ratios
    assert free.cost is None and free.saved == pytest.approx(0.75)


def test_the_same_judge_twice_is_kept():
    """Same rubric, judge and verdicts: KEEP, and said so; other verdicts of it are named repeat noise."""
    old, _, gold = case(20, 0, 0, 20)
    found = compare_judges(old, replace(old, name="again"), gold)
    assert found.verdict == "KEEP" and "same verdicts" in found.reasons[0] and found.flips == ()
    said = dict(old.verdicts) | {"p0000": W, "p0001": L}
    assert any("repeat noise" in note for note in compare_judges(old, replace(old, verdicts=said), gold).notes)


def test_no_discordant_pair_is_equivalence_only_with_enough_prompts():
    """Another judge with the same verdicts: 40 prompts leave the margin open, 200 close it (149 do: rule of three)."""
    for n, verdict in ((40, "UNDECIDED"), (200, "KEEP")):
        old, _, gold = case(n - 10, 0, 0, 10)
        found = compare_judges(old, replace(old, judge="other"), gold)
        assert found.verdict == verdict and found.mcnemar.p_exact == 1.0
        assert found.difference.low < 0 < found.difference.high
        assert found.power.pairs_needed >= 149
    assert found.power.pairs_needed == 149
    json.dumps(asdict(found), allow_nan=False)


def test_equal_preferences_are_known_to_be_equal():
    """The same preference on every pair is marked; one that differs, or none at all, is not."""
    old, _, gold = case(40, 0, 0, 10)
    other = replace(old, judge="other")
    assert compare_judges(old, other, gold).same_preferences
    moved = replace(other, preferences=dict(other.preferences) | {"p0003": 0.61})
    assert not compare_judges(old, moved, gold).same_preferences
    assert not compare_judges(replace(old, preferences={}), other, gold).same_preferences


def test_reasons_count_one_in_the_singular():
    """One pair on one prompt is one pair and one prompt in the reasons."""
    found = compare_judges(side("1", [L]), side("2", [W]), gold_of([W]))
    assert "on 1 pair:" in found.reasons[0] and found.reasons[1].startswith("1 prompt is too few")


@pytest.mark.parametrize("n", [1, 2, 29])
def test_fewer_than_thirty_prompts_give_no_verdict(n: int):
    """Figures are shown with their n, and the verdict is UNDECIDED however clear the difference."""
    human = [W if k % 2 else L for k in range(n)]
    found = compare_judges(side("1", [h.mirrored for h in human]), side("2", human), gold_of(human))
    assert found.verdict == "UNDECIDED" and found.difference.n == n and found.more_pairs >= 1
    assert any("too few" in reason for reason in found.reasons)


@pytest.mark.parametrize("only", [W, T, L])
def test_labels_of_one_kind(only: Outcome):
    """One class, or all ties: accuracy stands, the calibrated loss is undefined, and a note says why."""
    rng = np.random.default_rng(0)
    sides = [side(str(k), [only if rng.random() < 0.7 else L if only is W else W for _ in range(50)]) for k in (1, 2)]
    found = compare_judges(*sides, gold_of([only] * 50))
    assert found.difference is not None and found.calibrated_log_loss is None
    assert any(f"every majority is a {only}" in note for note in found.notes)


def test_constant_and_perfect_judges():
    """A constant judge against a perfect one: every figure is finite, and the perfect one is adopted."""
    human = [W if k % 2 else L for k in range(60)]
    sure = {f"p{k:04}": 1.0 if h is W else 0.0 for k, h in enumerate(human)}
    found = compare_judges(side("1", [W] * 60), side("2", human, preferences=sure), gold_of(human))
    assert (found.verdict, found.kappa.value) == ("ADOPT", pytest.approx(1.0))
    assert found.accuracy_new.value == 1.0 and found.accuracy_new.low < 1.0
    assert found.log_loss.value < 0 and found.calibrated_log_loss.high < 0
    assert any("says win on every pair" in note for note in found.notes)
    json.dumps(asdict(found), allow_nan=False)


def test_all_verdicts_invalid():
    """Shared pairs without one valid verdict on both sides: no figure, counts, UNDECIDED."""
    old, new, gold = case(40, 0, 0)
    found = compare_judges(replace(old, verdicts=dict.fromkeys(old.verdicts)), new, gold)
    assert found.verdict == "UNDECIDED" and found.difference is None and found.log_loss is None and found.kappa is None
    assert (found.compared, found.invalid) == (0, (40, 0)) and found.invalid_as_wrong.value == 1.0


def test_sides_without_preferences():
    """Verdicts alone are enough: log losses are undefined, the rest stands."""
    old, new, gold = case(80, 12, 3, 5)
    found = compare_judges(replace(old, preferences={}), new, gold)
    assert found.log_loss is None and found.calibrated_log_loss is None and found.verdict == "ADOPT"


@pytest.mark.parametrize("value", [math.nan, -0.1, 1.1, math.inf])
def test_preferences_that_are_no_probability_are_refused(value: float):
    """NaN and values outside [0, 1] are an input error naming side, field and pair."""
    with pytest.raises(InputError, match=r"side 's', field preferences, pair 'p'"):
        Side("s", "r@1", "j", {"p": W}, {"p": value})
    with pytest.raises(InputError, match="field anchors"):
        Side("s", "r@1", "j", {"p": W}, anchors={"p": value})


def test_bad_costs_margins_and_disjoint_sides_are_refused():
    """Negative costs, margins out of range, an empty gold set and sides without a common pair are input errors."""
    old, new, gold = case(40, 1, 1)
    with pytest.raises(InputError, match="field cost"):
        replace(old, cost=-1.0)
    for bad in ({"margin": 0.0}, {"margin": 1.0}, {"saving": 1.0}, {"level": 0.4}, {"power": 1.0}):
        with pytest.raises(InputError, match="must lie"):
            compare_judges(old, new, gold, **bad)
    with pytest.raises(InputError, match="no labelled pair in common"):
        compare_judges(old, new, GoldSet(()))
    with pytest.raises(InputError, match="no labelled pair in common"):
        compare_judges(old, replace(new, verdicts={"other": W}), gold)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_order_is_nothing_and_swapping_sides_turns_every_sign(seed: int, random):
    """Rows in any order give the same value; old and new changed round give the mirrored one."""
    rng = np.random.default_rng(seed)
    human = [(W, T, L)[rng.integers(3)] for _ in range(50)]
    old, new, gold = side("1", noisy(rng, human, 0.6)), side("2", noisy(rng, human, 0.8)), gold_of(human)
    items = list(gold.items)
    random.shuffle(items)
    one, two = compare_judges(old, new, gold), compare_judges(old, new, GoldSet(tuple(items)))
    assert one.flips == two.flips and (one.verdict, one.reasons) == (two.verdict, two.reasons)
    assert one.difference.low == pytest.approx(two.difference.low)
    back = compare_judges(new, old, gold)
    for name in ("difference", "log_loss", "kappa"):
        assert getattr(back, name).value == pytest.approx(-getattr(one, name).value)
    assert back.difference.low == pytest.approx(-one.difference.high)
    assert back.finding == {"better": "worse", "worse": "better"}.get(one.finding, back.finding)


def recorded(folder: Path, judge: str) -> Side:
    """One recorded judge of vicuna80, both orders averaged."""
    value = {"A": 1.0, "tie": 0.5, "B": 0.0}
    given: dict[str, list[str | None]] = {}
    for line in (folder / "verdicts.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["judge"] == judge:
            given.setdefault(row["id"], []).append(row["verdict"])
    soft = {pair: None if None in said else sum(value[v] for v in said) / 2 for pair, said in given.items()}
    verdicts = {pair: None if p is None else W if p > 0.5 else L if p < 0.5 else T for pair, p in soft.items()}
    return Side(judge, "vicuna@1", judge, verdicts, soft, anchors=soft)


def test_recorded_judges_of_vicuna80(gold: Callable[[str], Path]):
    """GPT-4 for the bard judge on real labels is adopted; for GPT-3.5 it is undecided, with the labels still needed."""
    folder = gold("vicuna80")
    labels = GoldSet.read(folder / "pairs.jsonl")
    gpt4 = recorded(folder, "gpt-4")
    better = compare_judges(recorded(folder, "bard"), gpt4, labels)
    assert better.verdict == "ADOPT" and better.difference.low > 0 and better.difference.clusters == 80
    assert better.calibrated_log_loss.high < 0 and better.flips[0].right in ("old", "new")
    assert better.anchors.n + better.anchors.skipped == 800
    close = compare_judges(recorded(folder, "gpt-3.5-turbo"), gpt4, labels)
    assert (close.verdict, close.mcnemar.only_first, close.mcnemar.only_second) == ("UNDECIDED", 83, 77)
    assert (close.compared, close.no_majority) == (744, 56) and close.more_pairs > 1000
    assert isinstance(close, Change) and 0.03 < close.power.detectable < 0.06
