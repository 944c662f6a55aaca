"""The self-check: it reports the coverage that is there, on the design that was used, with the code that was used."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from calibration import draws
from calibration import selfcheck as module
from calibration.estimates import Estimate, clopper_pearson
from calibration.gold import GoldItem, GoldLabel, GoldSet
from calibration.ppi import Sample
from calibration.provenance import Joined, Judged, JudgedRun, Refused, join
from calibration.selfcheck import SelfCheck, _systematic, _within, _World, self_check
from calibration.winrate import Frame, headline, win_rate
from rubrics import Outcome
from rubrics.errors import InputError

OUTCOMES = {1.0: Outcome.WIN, 0.5: Outcome.TIE, 0.0: Outcome.LOSS}


def world(n: int, *, seed: int = 0, per_prompt: int = 1, ties: float = 0.15) -> tuple[JudgedRun, GoldSet]:
    """A judged run and its full labels: a gap in quality, partly the prompt's, seen by humans and a biased judge."""
    rng = np.random.default_rng(seed)
    prompt = np.arange(n) // per_prompt
    gap = 0.2 + np.sqrt(0.5) * rng.normal(size=n)[prompt] + np.sqrt(0.5) * rng.normal(size=n)
    human = np.where(rng.random(n) < ties, 0.5, (gap > 0).astype(float))
    seen = 1 / (1 + np.exp(-2 * (gap + 0.5 + rng.normal(size=n))))
    blur = rng.normal(size=n)
    rows, items = [], []
    for k in range(n):
        about = (f"p{k}", f"q{prompt[k]}")
        rows.append(Judged(*about, seen[k], 0.0, 1 - seen[k], "ab"[k % 2], int(400 + 50 * gap[k] + 60 * blur[k]), 400))
        label = GoldLabel("ann", OUTCOMES[human[k]])
        items.append(GoldItem(*about, (label,), "new", "old", "help@1", "ab"[k % 2], "desk"))
    return JudgedRun(tuple(rows), "new", "old", "help@1"), GoldSet(tuple(items))


def labelled(gold: GoldSet, draw: draws.Draw) -> GoldSet:
    """The labels of the drawn pairs, with the provenance of the draw."""
    picked = {pair.pair_id: pair for pair in draw.pairs}
    return GoldSet(
        tuple(
            replace(i, drawn=draw.how, probability=picked[i.pair_id].probability, stratum=picked[i.pair_id].stratum)
            for i in gold.items
            if i.pair_id in picked
        )
    )


def drawn(gold: GoldSet, n: int, *, seed: int = 0) -> GoldSet:
    """A simple random draw of ``n`` labels."""
    return labelled(gold, draws.draw_random([i.pair_id for i in gold.items], n, seed=seed))


def world_of(run: JudgedRun, gold: GoldSet, estimand: str = "superpopulation") -> _World:
    """The population that the self-check of this run uses."""
    joined = join(run, gold)
    assert isinstance(joined, Joined)
    return _World.like(Frame.of(run), joined, estimand)


def test_report_holds_every_figure_with_its_rounds():
    """Coverage is a count of rounds with its Clopper-Pearson interval; widths, bias and sizes stand beside it."""
    run, full = world(600)
    found = self_check(run, drawn(full, 100), rounds=150, seed=3)
    hits = round(found.coverage.value * 150)
    assert (found.coverage.low, found.coverage.high) == pytest.approx(clopper_pearson(hits, 150))
    assert (found.coverage.n, found.rounds, found.refused) == (150, 150, 0)
    assert (found.labels, found.pairs, found.prompts, found.design) == (100, 600, 600, "random")
    assert 0.89 < found.coverage.value <= 1.0 and found.holds
    assert abs(found.bias.value) < 0.02 and found.width.value < found.human_width.value
    assert 0.3 < found.rho < 0.8 and found.ties == pytest.approx(0.15, abs=0.08) and found.within == 0.0
    assert found.sentence.startswith("In 150 simulated runs with 100 labels of 600 pairs the 95% interval held")
    json.dumps(asdict(found), allow_nan=False)


def test_equal_seeds_give_equal_checks_and_the_order_of_rows_is_nothing():
    """The same seed gives the same value, and another seed another one."""
    run, full = world(200)
    labels = drawn(full, 60)
    first, again, other = (self_check(run, labels, rounds=20, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_progress_counts_every_round():
    """The callback sees 1..rounds of rounds."""
    run, full = world(200)
    seen: list[tuple[int, int]] = []
    self_check(run, drawn(full, 60), rounds=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_reported_estimator_is_the_one_that_is_checked(monkeypatch: pytest.MonkeyPatch):
    """An estimator whose interval is cut to a quarter shows in the report of the self-check as too narrow."""
    run, full = world(300)
    labels = drawn(full, 80)

    def narrow(*args, **kwargs):
        shown = headline(*args, **kwargs)
        c = shown.corrected
        return replace(
            shown,
            corrected=replace(c, low=c.value - (c.value - c.low) / 4, high=c.value + (c.high - c.value) / 4),
        )

    monkeypatch.setattr(module, "headline", narrow)
    found = self_check(run, labels, rounds=120)
    assert found.coverage.value == pytest.approx(0.38, abs=0.15)
    assert found.holds is False and "too narrow" in found.sentence


def test_win_rate_shows_what_the_shared_estimator_gives():
    """``win_rate`` and ``headline`` give the same corrected and human intervals."""
    run, full = world(300)
    labels = drawn(full, 80)
    joined = join(run, labels)
    shown, found = headline(Frame.of(run), joined.sample, joined.value), win_rate(run, labels)
    assert (shown.corrected, shown.human) == (found.corrected, found.human)


def test_known_coverage_is_reported_where_it_is_right_and_where_it_is_not():
    """True coverage 95% is reported as such at n 30; where a nearly bare active draw covers 80% the check says 80%."""

    def judge(rng: np.random.Generator, size: int = 1000) -> tuple[Frame, np.ndarray]:
        gap = rng.normal(0.2, 1.0, size)
        y = np.where(rng.random(size) < 0.15, 0.5, (gap + rng.normal(0, 0.7, size) > 0).astype(float))
        f = 1 / (1 + np.exp(-4 * (gap + 0.5 + rng.normal(size=size))))
        return Frame(np.column_stack([f, 0 * f, 1 - f]), 80 * gap + rng.normal(0, 60, size)), y

    def run(rng: np.random.Generator, mix: float) -> tuple[Frame, Sample, np.ndarray]:
        frame, y = judge(rng)
        u = 1 - np.abs(2 * frame.soft - 1)
        rows, chances = _systematic(mix / 1000 + (1 - mix) * u / u.sum(), 30, rng)
        return frame, Sample(rows, chances, np.arange(1000), np.arange(1000)), y[rows]

    rng = np.random.default_rng(0)
    truth = float(np.mean([judge(rng)[1].mean() for _ in range(500)]))

    def share_held(trials) -> float:
        shown = [(headline(*trial).corrected, aim) for trial, aim in trials]
        return float(np.mean([e.low <= aim <= e.high for e, aim in shown if isinstance(e, Estimate)]))

    for mix, expected in ((1.0, 0.955), (0.05, 0.81)):
        true = share_held((run(rng, mix), truth) for _ in range(600))
        said = []
        for _ in range(16):
            frame, sample, y = run(rng, mix)
            like = _World.like(frame, Joined(sample, np.column_stack([y, 0 * y, 1 - y]), ()), "superpopulation")
            trials = (like.trial(rng) for _ in range(40))
            said.append(share_held(((t.frame, t.sample, t.human), aim) for t, aim in trials))
        assert true == pytest.approx(expected, abs=0.035)
        assert np.mean(said) == pytest.approx(true, abs=0.045)


def test_copies_of_labels_do_not_predict_each_other():
    """With a judge that knows nothing and thirty labels, no simulated run finds a judge worth more than the real one's
    labels alone: outcomes are drawn anew, so no outcome stands on both sides of a fold.
    """
    run, full = world(400)
    rng = np.random.default_rng(1)
    blind = replace(
        run, rows=tuple(replace(r, p_win=p, p_loss=1 - p) for r, p in zip(run.rows, rng.random(400), strict=True))
    )
    found = self_check(blind, drawn(full, 60), rounds=100)
    assert found.width.value / found.human_width.value > 0.9


@pytest.mark.parametrize("estimand", ["superpopulation", "fixed set"])
@pytest.mark.parametrize("design", ["stratified", "unequal chances", "whole prompts", "everything"])
def test_designs_are_redrawn_as_they_were_drawn(design: str, estimand: str):
    """Strata keep their numbers, unequal chances their sum, prompts stay whole, a full draw stays full."""
    run, full = world(240, per_prompt=4 if design == "whole prompts" else 1)
    names = [i.pair_id for i in full.items]
    if design == "stratified":
        gold = labelled(full, draws.draw_stratified({i.pair_id: i.category for i in full.items}, 60))
    elif design == "unequal chances":
        gold = labelled(full, draws.draw_active({r.pair_id: 1 - abs(2 * r.p_win - 1) for r in run.rows}, 60))
    elif design == "whole prompts":
        gold = labelled(full, draws.draw_random(names, 240)).where(lambda i: int(i.prompt_id[1:]) < 40)
        gold = GoldSet(tuple(replace(i, drawn="random") for i in gold.items))
    else:
        gold = labelled(full, draws.draw_random(names, 240))
    like = world_of(run, gold, estimand)
    assert like.design == design
    trial, truth = like.trial(np.random.default_rng(0))
    sample = trial.sample
    assert 0.3 < truth < 0.9 and len(trial.human) == len(sample.rows) == len(gold)
    if design == "stratified":
        assert np.bincount(sample.strata[sample.rows]).tolist() == [30, 30]
        assert sample.chances == pytest.approx(30 / np.bincount(sample.strata)[sample.strata[sample.rows]])
    if design == "unequal chances":
        assert np.ptp(sample.chances) > 0.05 and sample.weights.sum() == pytest.approx(240, rel=0.35)
    if design == "whole prompts":
        assert set(np.bincount(sample.clusters[sample.rows])) == {0, 4} and sample.unit == "prompt"
    if design == "everything":
        assert (sample.chances == 1).all()
    found = self_check(run, gold, rounds=60, estimand=estimand)
    assert isinstance(found, SelfCheck) and found.design == design and found.coverage.value >= 0.85
    if (design, estimand) == ("everything", "fixed set"):
        assert found.coverage.value == 1.0 and found.width.value < 1e-9


def test_active_chances_of_unlabelled_pairs_are_recovered():
    """Chances that follow the judge's uncertainty are known for every pair from those of the labelled ones."""
    run, full = world(500)
    draw = draws.draw_active({r.pair_id: 1 - abs(2 * r.p_win - 1) for r in run.rows}, 60, mix=0.3)
    like = world_of(run, labelled(full, draw))
    assert like.chances == pytest.approx([draw.probabilities[r.pair_id] for r in run.rows], abs=1e-6)


def test_chances_that_follow_nothing_come_from_the_nearest_label():
    """Where chances are no line in the judge's uncertainty each pair has that of a labelled pair near it."""
    run, full = world(200)
    odd = {r.pair_id: 1.0 if k % 3 else 6.0 for k, r in enumerate(run.rows)}
    like = world_of(run, labelled(full, draws.draw_active(odd, 60, mix=0.1)))
    assert len(set(np.round(like.chances, 9))) == 2


def test_systematic_draws_keep_their_chances():
    """Over many draws each row is drawn as often as its chance says, and always exactly n rows."""
    rng = np.random.default_rng(0)
    wanted = np.array([5.0, 1.0, 1.0, 0.5, 0.5, 2.0])
    counts = np.zeros(6)
    for _ in range(4000):
        rows, chances = _systematic(wanted, 3, rng)
        assert len(set(rows.tolist())) == 3
        counts[rows] += 1
    full = np.array([1.0, 0.4, 0.4, 0.2, 0.2, 0.8])
    assert counts / 4000 == pytest.approx(full, abs=0.03)
    assert chances == pytest.approx(full[rows])


def test_prompts_share_their_luck():
    """Simulated outcomes of one prompt hang together as the real ones do, and so do their residuals."""
    run, full = world(2000, per_prompt=5, ties=0.0)
    blurred = np.random.default_rng(1).random(2000) < 0.5
    rows = tuple(
        replace(r, p_win=0.5, p_loss=0.5, candidate_length=None) if blur else replace(r, candidate_length=None)
        for r, blur in zip(run.rows, blurred, strict=True)
    )
    like = world_of(replace(run, rows=rows), drawn(full, 1000, seed=1))
    clusters, rng = like.sample.clusters, np.random.default_rng(0)
    y = np.array([i.value for i in full.items])
    trials = [like._outcomes(np.arange(2000), clusters, rng) for _ in range(10)]
    whole = [_within(x - x.mean(), np.full(2000, 0.24), clusters) for x in trials]
    left = [_within(x - like.means, like.means * (1 - like.means), clusters) for x in trials]
    assert 0.1 < like.within < 0.3
    assert np.mean(left) == pytest.approx(like.within, abs=0.02)
    assert np.mean(whole) == pytest.approx(_within(y - y.mean(), np.full(2000, 0.24), clusters), abs=0.03)
    lone, lone_labels = world(200)
    assert world_of(lone, drawn(lone_labels, 100)).within == 0.0


def test_analysis_of_variance_recovers_a_known_correlation():
    """Normal residuals with correlation .4 inside uneven prompts are read as .4."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(400), rng.integers(1, 8, 400))
    e = np.sqrt(0.4) * rng.normal(size=400)[codes] + np.sqrt(0.6) * rng.normal(size=len(codes))
    assert _within(e, np.ones(len(e)), codes) == pytest.approx(0.4, abs=0.05)
    assert _within(-np.sign(np.arange(40) % 2 - 0.5), np.ones(40), np.arange(40) // 2) == 0.0


def test_the_population_keeps_means_and_ties():
    """Simulated outcomes have the fitted means, take only values that labels or the ends have, and tie as often."""
    run, full = world(1500, ties=0.3)
    like = world_of(run, drawn(full, 300))
    rng = np.random.default_rng(0)
    seen = np.array([like._outcomes(np.arange(1500), like.sample.clusters, rng) for _ in range(200)])
    assert set(np.unique(seen)) == {0.0, 0.5, 1.0}
    assert np.abs(seen.mean(axis=0) - like.means).mean() < 0.035
    assert (seen == 0.5).mean() == pytest.approx(like.ties, abs=0.01) == pytest.approx(0.3, abs=0.06)


def test_split_votes_stay_split():
    """Outcomes averaged over annotators are drawn from the averages that occurred."""
    run, full = world(300)
    votes = (Outcome.WIN, Outcome.WIN, Outcome.LOSS)
    items = tuple(
        replace(i, labels=tuple(GoldLabel(f"a{k}", v) for k, v in enumerate(votes))) if n % 3 == 0 else i
        for n, i in enumerate(full.items)
    )
    like = world_of(run, drawn(GoldSet(items), 120))
    assert like.support == pytest.approx([0.0, 0.5, 2 / 3, 1.0])


def test_pairs_without_verdict_stay_in():
    """Invalid pairs stay in the simulated frame with their neutral preference."""
    run, full = world(300)
    rows = tuple(replace(r, p_win=None, p_tie=None, p_loss=None) if k % 4 == 0 else r for k, r in enumerate(run.rows))
    like = world_of(replace(run, rows=rows), drawn(full, 90))
    trial, _ = like.trial(np.random.default_rng(0))
    assert (trial.frame.soft == 0.5).mean() == pytest.approx(0.25, abs=0.09)


def test_labels_of_one_kind_are_said_to_prove_little():
    """Thirty wins of thirty are checked against a population in which losses are rare, with a note."""
    run, full = world(200)
    items = tuple(replace(i, labels=(GoldLabel("ann", Outcome.WIN),)) for i in full.items)
    found = self_check(run, drawn(GoldSet(items), 40), rounds=60)
    assert found.coverage.value > 0.9 and "every label is 1" in found.notes[0]


def test_a_constant_judge_has_no_correlation():
    """A judge that always says the same has ``rho`` None and an interval as wide as the labels'."""
    run, full = world(200)
    flat = replace(run, rows=tuple(replace(r, p_win=0.6, p_loss=0.4, candidate_length=None) for r in run.rows))
    found = self_check(flat, drawn(full, 60), rounds=40)
    assert found.rho is None and found.width.value == pytest.approx(found.human_width.value, rel=0.05)


def test_a_perfect_judge_is_checked():
    """A judge that repeats every label is checked against a population where it errs now and then."""
    run, full = world(300, ties=0.0)
    rows = tuple(replace(r, p_win=i.value, p_loss=1 - i.value) for r, i in zip(run.rows, full.items, strict=True))
    found = self_check(replace(run, rows=rows), drawn(full, 60), rounds=80)
    assert found.coverage.value > 0.88 and found.rho > 0.85


def test_refusals_of_the_win_rate_are_those_of_the_check():
    """Too few, stale or no labels: the refusal is the win rate's own."""
    run, full = world(120)
    for gold in (
        drawn(full, 29),
        GoldSet(()),
        GoldSet(tuple(replace(i, candidate="x") for i in drawn(full, 60).items)),
    ):
        found = self_check(run, gold, rounds=5)
        assert isinstance(found, Refused) and found == win_rate(run, gold).corrected


def test_rounds_without_interval_are_counted_apart():
    """Where redrawn labels fall on fewer than 30 prompts the round is refused and in no other figure."""
    run, full = world(80, per_prompt=2)
    gold = next(g for g in (drawn(full, 42, seed=s) for s in range(99)) if len({i.prompt_id for i in g.items}) >= 30)
    found = self_check(run, gold, rounds=40)
    assert found.refused > 0 and found.refused + (found.coverage.n if found.coverage else 0) == 40
    assert "gave no interval" in found.sentence


@pytest.mark.parametrize("bad", [{"rounds": 0}, {"level": 1.0}, {"level": 0.0}])
def test_arguments_out_of_range_are_refused(bad: dict[str, float]):
    """No rounds, or a level that is no level, is an input error."""
    run, full = world(100)
    with pytest.raises(InputError, match="self-check needs"):
        self_check(run, drawn(full, 40), **bad)


def test_vicuna80_labels_check_themselves(gold: Callable[[str], Path]):
    """Real prompts with ten pairs each: the check sees that their labels hang together and that the interval holds."""
    folder = gold("vicuna80")
    value = {"A": 1.0, "tie": 0.5, "B": 0.0, None: 0.5}
    scores: dict[str, list[float]] = {}
    for line in (folder / "verdicts.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["judge"] == "gpt-4":
            scores.setdefault(row["id"], []).append(value[row["verdict"]])
    found = GoldSet.read(folder / "pairs.jsonl")
    rows = tuple(
        Judged(i.pair_id, i.prompt_id, f := float(np.mean(scores[i.pair_id])), 0.0, 1 - f, i.category)
        for i in found.items
    )
    items = tuple(replace(i, candidate="a", baseline="b", drawn="random") for i in found.items)
    checked = self_check(JudgedRun(rows, "a", "b"), drawn(GoldSet(items), 150), estimand="fixed set", rounds=150)
    assert (checked.labels, checked.pairs, checked.prompts) == (150, 800, 80)
    assert 0.9 <= checked.coverage.value <= 0.99
    assert checked.width.value < 0.9 * checked.human_width.value
