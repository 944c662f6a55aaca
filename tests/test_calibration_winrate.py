"""The corrected win rate: values, coverage, symmetry, provenance, and everything it refuses."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import draws
from calibration.estimates import Estimate, mean, standard_error
from calibration.gold import GoldItem, GoldLabel, GoldSet
from calibration.ppi import Sample, corrected_mean, cross_fit_scores, interval, labels_needed, ppi_estimate
from calibration.provenance import Judged, JudgedRun, Refused, join, label_more
from calibration.winrate import SegmentRate, WinRate, segment_win_rates, win_rate
from rubrics import Outcome
from rubrics.errors import InputError

HUMAN = [1, 0, 1, 1, 0, 1, 0, 1, 0.5, 1, 0, 1, 1, 0, 0.5, 1, 1, 0, 1, 0]
JUDGED = [1, 0, 1, 0.5, 0, 1, 0.5, 1, 0.5, 1, 0, 0.5, 1, 0.5, 1, 1, 1, 0, 0, 0]
REST = [1, 1, 0.5, 0, 1, 0, 0.5, 1, 1, 0] * 20
OUTCOMES = {1.0: Outcome.WIN, 0.5: Outcome.TIE, 0.0: Outcome.LOSS}


def world(n: int, *, seed: int = 0, noise: float = 1.0, ties: float = 0.15) -> tuple[JudgedRun, GoldSet]:
    """A judged run and its full labels: a latent gap seen by humans and, with bias and noise, by the judge."""
    rng = np.random.default_rng(seed)
    gap = rng.normal(0.2, 1.0, n)
    human = np.where(rng.random(n) < ties, 0.5, (gap + rng.normal(0, 0.5, n) > 0).astype(float))
    seen = 1 / (1 + np.exp(-2 * (gap + 0.5 + noise * rng.normal(size=n))))
    tie = 0.2 * rng.random(n)
    rows, items = [], []
    for k in range(n):
        lengths = int(200 + 80 * gap[k] + 50 * rng.random()), 200
        rest = 1 - tie[k]
        rows.append(Judged(f"p{k}", f"q{k}", rest * seen[k], tie[k], rest * (1 - seen[k]), "ab"[k % 2], *lengths))
        label = GoldLabel("ann", OUTCOMES[human[k]])
        items.append(GoldItem(f"p{k}", f"q{k}", (label,), "new", "old", "help@1", "ab"[k % 2], "desk"))
    return JudgedRun(tuple(rows), "new", "old", "help@1"), GoldSet(tuple(items))


def drawn(gold: GoldSet, n: int, *, seed: int = 0) -> GoldSet:
    """A random draw of n labels out of a fully labelled set."""
    picked = {p.pair_id: p.probability for p in draws.draw_random([i.pair_id for i in gold.items], n, seed=seed).pairs}
    kept = [replace(i, drawn="random", probability=picked[i.pair_id]) for i in gold.items if i.pair_id in picked]
    return GoldSet(tuple(kept))


def mirrored(run: JudgedRun, gold: GoldSet) -> tuple[JudgedRun, GoldSet]:
    """The same run and labels with candidate and baseline changed round."""
    rows = tuple(
        replace(
            r, p_win=r.p_loss, p_loss=r.p_win, candidate_length=r.baseline_length, baseline_length=r.candidate_length
        )
        for r in run.rows
    )
    items = tuple(
        replace(
            i, labels=tuple(replace(x, outcome=x.outcome.mirrored) for x in i.labels), candidate="old", baseline="new"
        )
        for i in gold.items
    )
    return JudgedRun(rows, "old", "new", run.rubric), GoldSet(items)


def edges(estimate: Estimate) -> tuple[float, float, float]:
    """Value and interval."""
    return estimate.value, estimate.low, estimate.high


def test_reference_data_of_ppi_py():
    """Lambda .681182 and estimate .617030; our interval holds theirs (.469009, .765050), which uses z and ddof 0."""
    found = corrected_mean(HUMAN, JUDGED, REST)
    assert found.value == pytest.approx(0.617030, abs=5e-7)
    assert found.low < 0.469009 and found.high > 0.765050
    scores = np.array(JUDGED + REST, dtype=float)
    sample = Sample.simple(range(20), 220)
    part = ppi_estimate(sample, np.array(HUMAN, dtype=float), scores, method="ppi++")
    assert part.tuning * (1 - 20 / 220) == pytest.approx(0.681182, abs=5e-7)


def test_estimate_equals_ppi_py():
    """The value equals ppi_py's on random data, and the interval is a little wider: ddof and Student's t."""
    ppi_py = pytest.importorskip("ppi_py")
    rng = np.random.default_rng(5)
    for _ in range(5):
        y, f, u = rng.random(40), rng.random(40), rng.random(300)
        theirs = ppi_py.ppi_mean_pointestimate(y, f, u)
        low, high = ppi_py.ppi_mean_ci(y, f, u, alpha=0.05)
        ours = corrected_mean(y, f, u)
        assert ours.value == pytest.approx(float(np.ravel(theirs)[0]), abs=1e-10)
        assert 1.0 < (ours.high - ours.low) / float(high[0] - low[0]) < 1.08


def test_variance_follows_the_closed_form():
    """The squared error is var(Y)/n (1 - rho^2 N/(N+n)), so the gain in labels is its inverse."""
    rng = np.random.default_rng(0)
    n, size = 2000, 10_000
    f = rng.normal(0.5, 0.1, size)
    y = f + rng.normal(0, 0.1, size)
    sample = Sample.simple(range(n), size)
    part = ppi_estimate(sample, y[:n], f)
    shown = interval(sample, part, estimand="superpopulation")
    rho2 = float(np.corrcoef(y[:n], f[:n])[0, 1]) ** 2
    expected = 1.96 * np.sqrt(y[:n].var() / n * (1 - rho2 * (size - n) / size))
    assert (shown.high - shown.low) / 2 == pytest.approx(expected, rel=0.02)


def test_three_scales_side_by_side():
    """Judge, human and corrected rate each with n; the judge's bias is removed and the interval is narrower than the
    labels'.
    """
    run, full = world(1500)
    truth = float(np.mean([i.value for i in full.items]))
    found = win_rate(run, drawn(full, 200), widths=(0.03, 0.06))
    assert found.judge.value - truth > 0.05
    assert found.corrected.low < truth < found.corrected.high
    assert found.corrected.high - found.corrected.low < 0.95 * (found.human.high - found.human.low)
    assert (found.labels, found.judged, found.invalid, found.corrected.n) == (200, 1500, 0, 200)
    assert found.effective_labels > 220 and 0.3 < found.rho.value < 0.9
    (_, wide), (_, narrow) = found.labels_for[::-1]
    assert 30 <= wide < narrow


def test_win_tie_and_loss_sum_to_one():
    """The three rates sum to 1 and give the win rate back."""
    run, full = world(600)
    for method in ("cross-fit", "ppi++", "human only"):
        found = win_rate(run, drawn(full, 120), method=method)
        assert found.win.value + found.tie.value + found.loss.value == pytest.approx(1.0)
        assert found.win.value + found.tie.value / 2 == pytest.approx(found.corrected.value)


def test_every_pair_labelled_is_the_human_rate():
    """With all labels the fixed set is known: the corrected value is the human mean, whatever the judge says."""
    run, full = world(60)
    labels = GoldSet(tuple(replace(i, drawn="all") for i in full.items))
    found = win_rate(run, labels, estimand="fixed set")
    assert found.corrected.value == pytest.approx(np.mean([i.value for i in full.items]))
    assert found.corrected.high - found.corrected.low < 1e-9


@pytest.mark.parametrize("method", ["cross-fit", "ppi++", "human only"])
@pytest.mark.parametrize("estimand", ["fixed set", "superpopulation"])
def test_intervals_hold_their_level(method: str, estimand: str):
    """Over 400 draws the 95% interval holds the truth in 92-98%: the run's own mean, or that of a world it is drawn
    from.
    """
    run, full = world(4000, seed=9)
    p = run.probabilities
    f = p[:, 0] + p[:, 1] / 2
    y = np.array([i.value for i in full.items])
    rng = np.random.default_rng(2)
    hits = 0
    for draw in range(400):
        frame = rng.permutation(4000)[:500] if estimand == "superpopulation" else np.arange(500)
        rows = rng.permutation(500)[:80]
        sample = Sample.simple(rows, 500)
        own, scores = y[frame][rows], f[frame]
        if method == "cross-fit":
            scores = cross_fit_scores(sample, own, scores[:, None] - 0.5, seed=draw)
        shown = interval(sample, ppi_estimate(sample, own, scores, method=method), estimand=estimand)
        truth = y.mean() if estimand == "superpopulation" else y[:500].mean()
        hits += shown.low <= truth <= shown.high
    assert 0.92 <= hits / 400 <= 0.98


def test_clustered_prompts_need_wider_intervals():
    """Ten answers a prompt are not ten prompts: the superpopulation interval covers, the one that ignores prompts
    does not.
    """
    rng = np.random.default_rng(4)
    covered = {"prompts": 0, "rows": 0}
    for _ in range(200):
        effect = np.repeat(rng.normal(0, 0.25, 60), 10)
        y = np.clip(0.5 + effect + rng.normal(0, 0.15, 600), 0, 1)
        f = np.clip(y + rng.normal(0, 0.2, 600) - 0.8 * effect, 0, 1)
        rows = rng.permutation(600)[:300]
        names = [str(k // 10) for k in range(600)]
        for how, prompts in (("prompts", names), ("rows", None)):
            sample = Sample.simple(rows, 600, prompts=prompts)
            shown = interval(sample, ppi_estimate(sample, y[rows], f), estimand="superpopulation")
            covered[how] += shown.low <= 0.5 <= shown.high
    assert covered["prompts"] / 200 > 0.91 and covered["rows"] / 200 < 0.8


def test_stale_labels_cover_nothing_and_are_refused():
    """Labels of an older, weaker candidate would put the truth outside the interval; they are refused, with the fix."""
    run, full = world(1000)
    labels = drawn(full, 200)
    worse = GoldSet(
        tuple(
            replace(i, candidate="older", labels=(replace(i.labels[0], outcome=Outcome.LOSS),))
            if k % 2
            else replace(i, candidate="older")
            for k, i in enumerate(labels.items)
        )
    )
    found = win_rate(run, worse)
    assert isinstance(found.corrected, Refused) and found.corrected.kind == "stale"
    assert "older against old" in found.corrected.reason and "fresh" in found.corrected.fix
    assert found.human is None and found.judge is not None
    # What the refusal prevents: the same labels under a false name miss the truth by far.
    lied = win_rate(run, GoldSet(tuple(replace(i, candidate="new") for i in worse.items)))
    assert lied.corrected.high < np.mean([i.value for i in full.items])


def test_every_refusal_has_its_kind():
    """No labels, too few, not drawn at random, unknown pairs, another rubric, lost chances: each says why and what to
    do.
    """
    run, full = world(200)
    labels = drawn(full, 60)

    def kind(gold: GoldSet, **more) -> str:
        refused = win_rate(run, gold, **more).corrected
        assert isinstance(refused, Refused) and refused.reason and refused.fix
        return refused.kind

    def change(**fields) -> GoldSet:
        return GoldSet(tuple(replace(i, **fields) for i in labels.items))

    assert kind(GoldSet(())) == "no_labels"
    assert kind(drawn(full, 29)) == "too_few"
    assert kind(change(drawn="unknown")) == "not_random"
    assert kind(GoldSet(tuple(replace(i, pair_id=f"x{i.pair_id}") for i in labels.items))) == "unknown_pairs"
    assert kind(change(rubric="brevity@1")) == "rubric"
    assert kind(change(drawn="active", probability=None)) == "chance"
    assert kind(change(drawn="all")) == "chance"
    assert kind(change(candidate=None)) == "stale"
    assert isinstance(win_rate(run, drawn(full, 30)).corrected, Estimate)


@pytest.mark.parametrize(
    ("have", "pairs", "says"),
    [
        (18, 200, "label 12 more pairs, better 82"),
        (18, 36, "label 12 more pairs, better all 18 that are left; for 100 judge more prompts"),
        (18, 20, "judge more prompts: only 2 pairs are left to label in this run, and 12 more labels are needed"),
        (29, 29, "judge more prompts: no pair is left to label in this run, and 1 more label is needed"),
    ],
)
def test_nobody_is_asked_to_label_more_pairs_than_a_run_has(have: int, pairs: int, says: str) -> None:
    """The advice is capped at the pairs that are left; beyond them it is to judge more prompts."""
    assert label_more(have, pairs, least=30).startswith(says)


def test_pairs_that_people_split_on_are_not_left_to_label() -> None:
    """Of 40 pairs 35 are labelled, 18 with a majority: five are left, whatever the majorities."""
    said = label_more(18, 40, least=30, labelled=35)
    assert said.startswith("judge more prompts: only 5 pairs are left to label in this run, and 12 more labels")


def test_few_prompts_are_too_few_however_many_labels():
    """A hundred labels on ten prompts say little about other prompts; about exactly these pairs they do."""
    run, full = world(200)
    rows = tuple(replace(r, prompt_id=f"q{k % 10}") for k, r in enumerate(run.rows))
    crowded = replace(run, rows=rows)
    labels = drawn(full, 100)
    refused = win_rate(crowded, labels).corrected
    assert isinstance(refused, Refused) and refused.kind == "too_few" and "10 prompts" in refused.reason
    assert isinstance(win_rate(crowded, labels, estimand="fixed set").corrected, Estimate)


def test_left_out_labels_are_counted():
    """Labels that cannot speak for the run are counted in the notes; another version of the rubric is named too."""
    run, full = world(300)
    labels = drawn(full, 100)
    mixed = GoldSet(
        tuple(
            replace(i, candidate="older") if k < 7 else replace(i, rubric="help@2") for k, i in enumerate(labels.items)
        )
    )
    found = win_rate(run, mixed)
    assert found.labels == 93
    assert any(note.startswith("7 labels left out") for note in found.notes)
    assert any("help@2" in note for note in found.notes)


def test_labels_that_do_not_look_random_are_pointed_out():
    """Labelling only what the judge likes is seen in the judge's own scores, whatever the file claims."""
    run, full = world(600)
    p = run.probabilities
    best = set(np.argsort(-(p[:, 0] + p[:, 1] / 2))[:100].tolist())
    picked = GoldSet(tuple(replace(i, drawn="random") for k, i in enumerate(full.items) if k in best))
    assert any("drawn at random" in note for note in win_rate(run, picked).notes)
    assert not any("drawn at random" in note for note in win_rate(run, drawn(full, 100)).notes)


def test_active_labels_with_stored_chances_are_unbiased():
    """Drawing uncertain pairs more often and weighting by the stored chance gives the truth on average, unweighted
    does not.
    """
    run, full = world(400, seed=3)
    p = run.probabilities
    score = p[:, 0] + p[:, 1] / 2
    truth = float(np.mean([i.value for i in full.items]))
    uncertainty = {r.pair_id: float(score[k]) ** 4 for k, r in enumerate(run.rows)}
    by_pair = {i.pair_id: i for i in full.items}
    weighted, plain, hits = [], [], 0
    for seed in range(120):
        draw = draws.draw_active(uncertainty, 80, seed=seed, mix=0.3)
        items = tuple(replace(by_pair[d.pair_id], drawn="active", probability=d.probability) for d in draw.pairs)
        joined = join(run, GoldSet(items))
        part = ppi_estimate(joined.sample, joined.value, score, method="human only")
        shown = interval(joined.sample, part, estimand="fixed set")
        weighted.append(part.value)
        plain.append(np.mean([i.value for i in items]))
        hits += shown.low <= truth <= shown.high
    assert abs(np.mean(weighted) - truth) < 0.015 < abs(np.mean(plain) - truth)
    assert hits / 120 > 0.9


def test_stratified_draws_weight_their_strata():
    """A stratum drawn twice as densely counts by its size in the run, not by its labels."""
    run, full = world(400, seed=5)
    strata = {r.pair_id: r.category for r in run.rows}
    draw = draws.draw_stratified(strata, 120, spread={"a": 1.0, "b": 3.0})
    by_pair = {i.pair_id: i for i in full.items}
    gold = GoldSet(
        tuple(
            replace(
                by_pair[d.pair_id],
                drawn="stratified",
                stratum=d.stratum,
                probability=d.probability,
                labels=(GoldLabel("ann", Outcome.WIN if d.stratum == "a" else Outcome.LOSS),),
            )
            for d in draw.pairs
        )
    )
    found = win_rate(run, gold, method="human only")
    assert found.corrected.value == pytest.approx(0.5)
    named = GoldSet(tuple(replace(i, stratum=f"s{i.stratum}") for i in gold.items))
    assert win_rate(run, named, method="human only").corrected.value == pytest.approx(0.5)


def test_escalated_labels_reenter_by_their_chance():
    """All abstained pairs labelled (chance 1) beside a random draw of the rest: weighting keeps the rate unbiased."""
    run, full = world(500, seed=6)
    p = run.probabilities
    unsure = np.abs(p[:, 0] + p[:, 1] / 2 - 0.5) < 0.15
    truth = float(np.mean([i.value for i in full.items]))
    rest = [i for i, hard in zip(full.items, unsure, strict=True) if not hard]
    values = []
    for seed in range(60):
        chosen = {d.pair_id for d in draws.draw_random([i.pair_id for i in rest], 60, seed=seed).pairs}
        items = [replace(i, drawn="escalated") for i, hard in zip(full.items, unsure, strict=True) if hard]
        items += [replace(i, drawn="random", probability=60 / len(rest)) for i in rest if i.pair_id in chosen]
        values.append(win_rate(run, GoldSet(tuple(items)), method="human only", estimand="fixed set").corrected.value)
    assert np.mean(values) == pytest.approx(truth, abs=0.015)


def test_invalid_verdicts_stay_in_and_are_counted():
    """Pairs without a verdict are neither dropped nor guessed: they are counted, and the corrected rate stays
    unbiased.
    """
    run, full = world(800, seed=8)
    p = run.probabilities
    hard = p[:, 0] > 0.7
    broken = tuple(
        replace(r, p_win=None, p_tie=None, p_loss=None) if bad and k % 3 else r
        for k, (r, bad) in enumerate(zip(run.rows, hard, strict=True))
    )
    found = win_rate(replace(run, rows=broken), drawn(full, 200))
    truth = float(np.mean([i.value for i in full.items]))
    assert found.invalid > 50 and any("no verdict" in note for note in found.notes)
    assert found.corrected.low < truth < found.corrected.high
    assert found.judge.n == 800 - found.invalid


@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
def test_constant_judges_cost_nothing(score: float):
    """A judge that always says the same is ignored: the corrected interval is the labels' own, but for a degree of
    freedom.
    """
    run, full = world(300)
    rows = tuple(replace(r, p_win=score, p_tie=0.0, p_loss=1 - score) for r in run.rows)
    flat = replace(run, rows=tuple(replace(r, candidate_length=None) for r in rows))
    found = win_rate(flat, drawn(full, 60))
    assert found.corrected.value == pytest.approx(found.human.value)
    assert found.corrected.high - found.corrected.low < 1.02 * (found.human.high - found.human.low)
    assert found.rho is None and found.tuning == pytest.approx(0.0)


def test_perfect_judges_and_equal_labels_are_not_certain():
    """Sixty flawless labels do not make a flawless judge, all wins do not make a rate of 1, all ties do not make a
    known half.
    """
    run, full = world(300, ties=0.0)
    exact = tuple(
        replace(r, p_win=i.value, p_tie=0.0, p_loss=1 - i.value) for r, i in zip(run.rows, full.items, strict=True)
    )
    for method in ("cross-fit", "ppi++"):
        found = win_rate(replace(run, rows=exact), drawn(full, 60), estimand="fixed set", method=method)
        assert found.corrected.high - found.corrected.low > 0.02
    for outcome in Outcome:
        same = GoldSet(tuple(replace(i, labels=(GoldLabel("ann", outcome),)) for i in drawn(full, 60).items))
        found = win_rate(run, same)
        assert found.corrected.high - found.corrected.low > 0.04
        assert 0 <= found.corrected.low <= found.corrected.high <= 1


def test_probabilities_of_exactly_zero_and_one_are_fine():
    """Most recorded probabilities lie beyond .01/.99; none of them breaks a logarithm."""
    run, full = world(300)
    hard = tuple(replace(r, p_win=float(r.p_win > 0.5), p_tie=0.0, p_loss=1 - float(r.p_win > 0.5)) for r in run.rows)
    assert isinstance(win_rate(replace(run, rows=hard), drawn(full, 100)).corrected, Estimate)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"p_win": float("nan")}, "sum to 1"),
        ({"p_win": 0.9, "p_tie": 0.9, "p_loss": 0.0}, "sum to 1"),
        ({"p_win": None, "p_tie": 0.5, "p_loss": 0.5}, "sum to 1"),
        ({"p_win": -0.5, "p_tie": 0.5, "p_loss": 1.0}, "sum to 1"),
    ],
)
def test_bad_probabilities_are_refused(fields: dict, message: str):
    """NaN, negative and unnormalised probabilities are the caller's error."""
    row = replace(Judged("p", "q", 0.5, 0.0, 0.5), **fields)
    with pytest.raises(InputError, match=message):
        JudgedRun((row,))


def test_repeated_pairs_and_bad_chances_are_refused():
    """A pair twice in the run, a chance of 0, two labels on one row, values out of range."""
    row = Judged("p", "q", 0.5, 0.0, 0.5)
    with pytest.raises(InputError, match="twice"):
        JudgedRun((row, row))
    with pytest.raises(InputError, match="chance"):
        Sample(np.array([0]), np.array([0.0]), np.arange(2), ["a", "b"])
    with pytest.raises(InputError, match="two labels"):
        Sample(np.array([0, 0]), np.array([0.5, 0.5]), np.arange(2), ["a", "b"])
    with pytest.raises(InputError, match="from 0 to 1"):
        corrected_mean([1, 0, 2], [1, 0, 1], [1.0])
    with pytest.raises(InputError, match="at least 3"):
        corrected_mean([1, 0], [1, 0], [1.0])


def test_no_run_gives_no_number():
    """An empty run has no judge rate and a refusal."""
    found = win_rate(JudgedRun(()), GoldSet(()))
    assert found.judge is None and found.human is None and isinstance(found.corrected, Refused)


def figures(found: WinRate) -> list[float]:
    """Every number of a result in a fixed order."""
    return [x for e in (found.judge, found.human, found.corrected, found.tie) for x in edges(e)]


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(30, 60), st.sampled_from(["fixed set", "superpopulation"]))
def test_changing_sides_mirrors_every_figure(seed: int, n: int, estimand: str):
    """Candidate and baseline changed round: every rate becomes one minus itself, win and loss change places (M20)."""
    run, full = world(150, seed=seed)
    labels = drawn(full, n, seed=seed)
    one, two = win_rate(run, labels, estimand=estimand), win_rate(*mirrored(run, labels), estimand=estimand)
    for a, b in ((one.judge, two.judge), (one.human, two.human), (one.corrected, two.corrected)):
        assert (1 - b.value, 1 - b.high, 1 - b.low) == pytest.approx(edges(a), abs=1e-9)
    for a, b in ((one.win, two.loss), (one.loss, two.win), (one.tie, two.tie)):
        assert edges(b) == pytest.approx(edges(a), abs=1e-9)
    assert one.effective_labels == pytest.approx(two.effective_labels)
    assert one.rho.value == pytest.approx(two.rho.value)
    here, there = (segment_win_rates(*pair) for pair in ((run, labels), mirrored(run, labels)))
    for a, b in zip(here, there, strict=True):
        assert 1 - b.shrunk.value == pytest.approx(a.shrunk.value, abs=1e-9)
        assert b.q == pytest.approx(a.q, abs=1e-9)


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_repeating_the_set_changes_no_rate(seed: int):
    """The whole set twice (new ids, same prompts) doubles counts and leaves rates and intervals (M18)."""
    run, full = world(120, seed=seed)
    labels = drawn(full, 50, seed=seed)
    twice = replace(run, rows=run.rows + tuple(replace(r, pair_id=f"{r.pair_id}b") for r in run.rows))
    more = GoldSet(labels.items + tuple(replace(i, pair_id=f"{i.pair_id}b") for i in labels.items))
    for estimand in ("superpopulation", "fixed set"):
        one, two = win_rate(run, labels, estimand=estimand), win_rate(twice, more, estimand=estimand)
        assert (two.labels, two.judged) == (2 * one.labels, 2 * one.judged)
        assert figures(two) == pytest.approx(figures(one), abs=1e-9)


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_order_of_rows_and_labels_is_nothing(seed: int, random):
    """Rows and labels in any order give the same figures (M7)."""
    run, full = world(120, seed=seed)
    labels = drawn(full, 50, seed=seed)
    rows, items = list(run.rows), list(labels.items)
    random.shuffle(rows)
    random.shuffle(items)
    one, two = win_rate(run, labels), win_rate(replace(run, rows=tuple(rows)), GoldSet(tuple(items)))
    assert figures(two) == pytest.approx(figures(one), abs=1e-9)


def test_planned_labels_reach_the_planned_width():
    """Labelling as many pairs as the plan says gives about the interval it promised."""
    run, full = world(3000, seed=12)
    plan = win_rate(run, drawn(full, 150), widths=(0.04,)).labels_for[0][1]
    assert 150 < plan < 3000
    reached = win_rate(run, drawn(full, plan, seed=1)).corrected
    assert (reached.high - reached.low) / 2 == pytest.approx(0.04, rel=0.12)


def test_more_labels_than_pairs_are_no_plan():
    """Where the width would take more labels than the run has pairs the answer is None, never a number above N."""
    run, full = world(200, noise=3.0)
    labels = drawn(full, 60)
    joined = join(run, labels)
    part = ppi_estimate(joined.sample, joined.value, run.probabilities[:, 0])
    for estimand in ("superpopulation", "fixed set"):
        for width in (0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1):
            needed = labels_needed(joined.sample, part, width, estimand=estimand)
            assert needed is None or needed <= 200
    small = Sample.simple(range(10), 20)
    part = ppi_estimate(small, np.arange(10) % 2 * 1.0, np.linspace(0, 1, 20))
    assert labels_needed(small, part, 0.5, estimand="fixed set") is None


def test_segments_count_prompts_not_pairs():
    """With four pairs a prompt a segment's clusters are its labelled prompts, and its interval keeps its level."""
    held = total = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        prompts = np.arange(240) // 4
        gap = np.repeat(rng.normal(0, 1.2, 60), 4) + rng.normal(0, 0.4, 240)
        human, soft = rng.random(240) < 1 / (1 + np.exp(-2 * gap)), np.clip(0.5 + rng.normal(0, 0.2, 240), 0, 1)
        picked = set(rng.permutation(60)[:30].tolist())
        rows = tuple(
            Judged(f"p{k}", f"q{prompts[k]}", float(soft[k]), 0.0, float(1 - soft[k]), "abcde"[prompts[k] % 5])
            for k in range(240)
        )
        items = tuple(
            GoldItem(
                f"p{k}", f"q{prompts[k]}", (GoldLabel("ann", OUTCOMES[float(human[k])]),), "new", "old", "help@1",
                drawn="random",
            )
            for k in range(240)
            if int(prompts[k]) in picked
        )  # fmt: skip
        for row in segment_win_rates(JudgedRun(rows, "new", "old", "help@1"), GoldSet(items)):
            inside = {int(p) for p in picked if "abcde"[p % 5] == row.name}
            if row.corrected is None:
                assert len(inside) < 2
                continue
            assert (row.corrected.clusters, row.corrected.n) == (len(inside), 4 * len(inside))
            held += row.corrected.low <= 0.5 <= row.corrected.high
            total += 1
    assert 0.93 <= held / total <= 0.975


def test_rho_weighs_labels_by_their_chance():
    """Where sure pairs were labelled less often, the correlation with people is that of the run."""
    run, full = world(6000, seed=3)
    whole = win_rate(run, GoldSet(tuple(replace(i, drawn="all") for i in full.items))).rho
    soft = run.probabilities[:, 0] + run.probabilities[:, 1] / 2
    chance = np.where(np.abs(soft - 0.5) > 0.2, 0.05, 0.5)
    picked = np.random.default_rng(0).random(6000) < chance
    kept = [replace(i, drawn="active", probability=float(chance[k])) for k, i in enumerate(full.items) if picked[k]]
    found = win_rate(run, GoldSet(tuple(kept))).rho
    assert found.low <= whole.value <= found.high
    assert abs(found.value - whole.value) < 0.07


def test_an_impossible_width_is_none():
    """With few judged pairs no number of labels reaches a narrow interval for prompts like these; the fixed set can
    be known.
    """
    run, full = world(120)
    labels = drawn(full, 60)
    assert win_rate(run, labels, widths=(0.005,)).labels_for == ((0.005, None),)
    joined = join(run, labels)
    part = ppi_estimate(joined.sample, joined.value, run.probabilities[:, 0])
    assert 60 < labels_needed(joined.sample, part, 0.005, estimand="fixed set") <= 120


def test_segments_show_raw_and_shrunk():
    """A segment the judge flatters is found, a thin one is pulled to the common bias, an unlabelled one has no raw
    rate.
    """
    run, full = world(900, seed=2)
    by = {r.pair_id: ["code", "chat", "math"][k % 3] for k, r in enumerate(run.rows)}
    items = [
        replace(i, labels=(GoldLabel("ann", Outcome.LOSS),)) if by[i.pair_id] == "code" and k % 4 else i
        for k, i in enumerate(full.items)
    ]
    labels = drawn(GoldSet(tuple(items)), 240)
    kept = GoldSet(tuple(i for i in labels.items if by[i.pair_id] != "math" or int(i.pair_id[1:]) < 40))
    rows = segment_win_rates(run, kept, by=lambda r: by[r.pair_id] if r.pair_id != "p2" else "lone")
    found = {row.name: row for row in rows}
    assert [row.name for row in rows] == sorted(found)
    assert found["code"].q < 0.01 < found["chat"].corrected.value
    assert found["code"].corrected.value < found["code"].shrunk.value < found["chat"].shrunk.value
    assert found["lone"].corrected is None and found["lone"].shrunk is not None and found["lone"].p is None
    width = {name: row.shrunk.high - row.shrunk.low for name, row in found.items()}
    assert width["lone"] > width["math"] > width["chat"]
    assert isinstance(segment_win_rates(run, GoldSet(())), Refused)
    assert all(isinstance(row, SegmentRate) for row in rows)


def test_alpacaeval_raw_win_rates_and_errors_are_exact(gold: Callable[[str], Path]):
    """Every published raw win rate and standard error: 100 mean(p) and 100 sd/sqrt(n), as far as p was rounded."""
    folder = gold("alpacaeval2")
    published = json.loads((folder / "published_leaderboard.json").read_text(encoding="utf-8"))
    scores: dict[str, list[float]] = {}
    for line in gzip.decompress((folder / "verdicts.jsonl.gz").read_bytes()).decode().splitlines():
        row = json.loads(line)
        if row["prob_a"] is not None:
            scores.setdefault(row["model"], []).append(row["prob_a"])
    shared = scores.keys() & published.keys()
    assert len(scores) == 35 and len(shared) == 34
    for model in sorted(shared):
        values = scores[model]
        found = mean(values)
        assert 100 * found.value == pytest.approx(published[model]["win_rate"], abs=1e-5), model
        assert 100 * standard_error(values) == pytest.approx(published[model]["standard_error"], abs=1e-5), model


def test_coverage_on_vicuna80(gold: Callable[[str], Path]):
    """Sixty labels of 800 real pairs: over 150 draws GPT-4's corrected interval holds the full rate and is a fifth
    narrower.
    """
    found = GoldSet.read(gold("vicuna80") / "pairs.jsonl")
    value = {"A": 1.0, "tie": 0.5, "B": 0.0, None: 0.5}
    scores: dict[str, list[float]] = {}
    for line in (gold("vicuna80") / "verdicts.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["judge"] == "gpt-4":
            scores.setdefault(row["id"], []).append(value[row["verdict"]])
    f = np.array([np.mean(scores[i.pair_id]) for i in found.items])
    y = np.array([i.value for i in found.items])
    gaps = np.array([float(i.candidate_length - i.baseline_length) for i in found.items])
    features = np.column_stack([f - 0.5, np.tanh(gaps / np.sqrt((gaps**2).mean()))])
    rng, hits, widths = np.random.default_rng(0), 0, np.zeros(2)
    for draw in range(150):
        rows = rng.permutation(800)[:60]
        sample = Sample.simple(rows, 800, prompts=[i.prompt_id for i in found.items])
        fitted = cross_fit_scores(sample, y[rows], features, seed=draw)
        shown = interval(sample, ppi_estimate(sample, y[rows], fitted), estimand="fixed set")
        alone = interval(sample, ppi_estimate(sample, y[rows], f, method="human only"), estimand="fixed set")
        hits += shown.low <= y.mean() <= shown.high
        widths += shown.high - shown.low, alone.high - alone.low
    assert 0.91 <= hits / 150 <= 0.99
    assert widths[0] < 0.85 * widths[1]
