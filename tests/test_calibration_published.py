"""Published figures that are wrong or need their definition: what was done there, done again, beside what is right.

Each test backs a line of docs/published-figures.md. The other lines name tests that stand with their module.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration import certify, cohen_kappa, fleiss_kappa, monitor, pool
from calibration.coefficients import Resampling
from calibration.length import controlled, length_feature
from calibration.ratings import Battles, rate
from calibration.selective import risk_bound

QUICK = Resampling(rounds=50)
SIDE = {"A": 1, "tie": 0, "B": -1, None: 0}


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    plain = folder / name
    text = plain.read_text() if plain.exists() else gzip.decompress((folder / f"{name}.gz").read_bytes()).decode()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("subset", "evaluator", "published", "right", "agreement"),
    [
        ("Natural", "GPT-4/Vanilla", (0.267756895289, 0.271491015056), (0.8977, 0.9179), 0.897708674304),
        ("GPTInst", "ChatGPT/Vanilla", (-0.165163081194, -0.143735158542), (-0.4469, -0.4902), 0.316057774002),
    ],
)
def test_llmbar_kappas_read_every_second_output_as_a_third_class(
    gold: Callable[[str], Path],
    subset: str,
    evaluator: str,
    published: tuple[float, float],
    right: tuple[float, float],
    agreement: float,
) -> None:
    """LLMBar's kappa_False and kappa_True come out to all digits when verdict 2 is turned into 0, and are far off the
    kappa of the same verdicts; its kappa_agreement is right.
    """
    labels = {r["id"]: r["label"] for r in rows_of(gold("llmbar"), "pairs.jsonl") if subset in r["category"]}
    said: dict[str, dict[str, str]] = {"ab": {}, "ba": {}}
    for r in rows_of(gold("llmbar"), "verdicts.jsonl"):
        if r["judge"] == evaluator and r["id"] in labels:
            said[r["order"]][r["id"]] = r["verdict"]
    for order, figure, true in zip(("ab", "ba"), published, right, strict=True):
        kappa = cohen_kappa([(label, said[order][k]) for k, label in labels.items()], ("A", "B"), resampling=QUICK)
        coded = [({"A": 1, "B": 2}[label], {"A": 1, "B": 0}[said[order][k]]) for k, label in labels.items()]
        wrong = cohen_kappa(coded, (0, 1, 2), resampling=QUICK)
        assert kappa is not None
        assert wrong is not None
        assert wrong.value == pytest.approx(figure, abs=1e-11)
        assert kappa.value == pytest.approx(true, abs=5e-5)
    both = cohen_kappa([(said["ab"][k], said["ba"][k]) for k in labels], ("A", "B"), resampling=QUICK)
    assert both is not None
    assert both.value == pytest.approx(agreement, abs=1e-11)


def test_a_majority_of_six_has_four_accuracies(gold: Callable[[str], Path]) -> None:
    """Six judges on LLMBar's adversarial pairs: one vote reads .434 to .531 by how orders, ties and subsets count."""
    pairs = {r["id"]: r for r in rows_of(gold("llmbar"), "pairs.jsonl") if "Natural" not in r["category"]}
    votes: dict[str, Counter[str]] = {k: Counter() for k in pairs}
    for r in rows_of(gold("llmbar"), "verdicts.jsonl"):
        if r["judge"].endswith("/Vanilla") and r["id"] in pairs:
            for order in ("both", r["order"], r["judge"]):
                votes[r["id"]][order] += SIDE[r["verdict"]]

    def credit(pair: str, order: str) -> float:
        lean = np.sign(votes[pair][order])
        return 0.5 if lean == 0 else float(lean == SIDE[pairs[pair]["label"]])

    assert np.mean([credit(k, "both") for k in pairs]) == pytest.approx(0.5, abs=1e-12)
    assert np.mean([credit(k, "ab") for k in pairs]) == pytest.approx(0.4592, abs=5e-5)
    assert np.mean([credit(k, "ba") for k in pairs]) == pytest.approx(0.4545, abs=5e-5)
    assert np.mean([credit(k, "GPT-4/Vanilla") for k in pairs]) == pytest.approx(0.8103, abs=5e-5)
    subsets = {r["category"] for r in pairs.values()}
    means = [np.mean([credit(k, "both") for k, r in pairs.items() if r["category"] == name]) for name in subsets]
    assert np.mean(means) == pytest.approx(0.5306, abs=5e-5)


def test_xstest_refusal_rates(gold: Callable[[str], Path]) -> None:
    """Full and partial refusal on the 250 safe prompts: 38.0/21.6, 14.0/15.6 and 6.4/2.0%."""
    rows = [r for r in rows_of(gold("xstest"), "items.jsonl") if r["meta"]["prompt_label"] == "safe"]
    for model, full, partial in (("llama2orig", 38.0, 21.6), ("llama2new", 14.0, 15.6), ("gpt4", 6.4, 2.0)):
        kinds = Counter(r["label"] for r in rows if r["meta"]["model"] == model)
        assert kinds.total() == 250
        assert [kinds[k] / 2.5 for k in ("2_full_refusal", "3_partial_refusal")] == pytest.approx([full, partial])


def test_prd_kappa_counts_places_not_systems(gold: Callable[[str], Path]) -> None:
    """The same reviews by the same systems give another Fleiss kappa than by the places shown, which is published."""
    pairs = {r["id"]: r for r in rows_of(gold("vicuna80"), "pairs.jsonl")}
    human = {k: int(np.sign(np.mean([SIDE[v] for v in r["annotators"]]))) for k, r in pairs.items()}
    for judge, by_place, by_system in (("gpt-4", 0.4063, 0.4051), ("claude-1", 0.3194, 0.3233)):
        calls = [r for r in rows_of(gold("vicuna80"), "verdicts.jsonl") if r["judge"] == judge]
        plain = [(SIDE[r["verdict"]], human[r["id"]]) for r in calls]
        sign = [1 if r["order"] == "ab" else -1 for r in calls]
        shown = [(s * a, s * b) for s, (a, b) in zip(sign, plain, strict=True)]
        found = [fleiss_kappa(table, (-1, 0, 1), resampling=QUICK) for table in (shown, plain)]
        assert [e.value for e in found if e] == pytest.approx([by_place, by_system], abs=5e-5)


def test_two_gold_sets_of_the_same_pairs_disagree(gold: Callable[[str], Path]) -> None:
    """FairEval's experts and the majority of three crowd votes name the same outcome on 29 of the same 80 pairs."""
    experts = {
        (r["prompt"], r["response_a"], r["response_b"]): r["label"] for r in rows_of(gold("faireval"), "pairs.jsonl")
    }
    turned = {"A": "B", "B": "A"}
    found = same = 0
    for r in rows_of(gold("vicuna80"), "pairs.jsonl"):
        as_is, other = (
            (r["prompt"], r[x], r[y]) for x, y in (("response_a", "response_b"), ("response_b", "response_a"))
        )
        if as_is in experts or other in experts:
            found += 1
            same += (
                experts[as_is] == r["label"]
                if as_is in experts
                else experts[other] == turned.get(r["label"], r["label"])
            )
    assert (same, found) == (29, 80)


def test_two_published_gpt_4_judges_are_one(gold: Callable[[str], Path]) -> None:
    """QLoRA's GPT-4 reviews are PRD's, word for word: two rows of a panel, one judge."""
    said: dict[str, dict[tuple[str, str], tuple[str, str]]] = {"gpt-4": {}, "gpt-4-qlora": {}}
    for r in rows_of(gold("vicuna80"), "verdicts.jsonl"):
        if r["judge"] in said:
            said[r["judge"]][r["id"], r["order"]] = (r["verdict"], r["raw"])
    assert len(said["gpt-4-qlora"]) == 960
    assert all(said["gpt-4"][key] == value for key, value in said["gpt-4-qlora"].items())


def test_lc_standard_error_is_no_sampling_error(gold: Callable[[str], Path]) -> None:
    """NullModel's published error of LC is .14 points; a prompt bootstrap of such a rate has about 1.0."""
    figures = json.loads((gold("alpacaeval2") / "published_leaderboard.json").read_text())["NullModel"]
    rows = [r for r in rows_of(gold("alpacaeval2"), "verdicts.jsonl") if r["model"] == "NullModel"]
    y = [r["prob_a"] for r in rows]
    x = length_feature([r["len_a"] for r in rows], [r["len_b"] for r in rows])
    found = controlled(y, x, rounds=300)
    assert found is not None
    assert len(y) == 805
    assert figures["lc_standard_error"] == pytest.approx(0.1418, abs=5e-5)
    assert (found.controlled.high - found.controlled.low) / 3.92 == pytest.approx(0.0105, abs=0.002)


def test_statsmodels_one_step_variance_is_negative() -> None:
    """On the Eight Schools combine_effects(method_re="dl") has tau2 -44.55 and a mean of 7.05; clamped it is 7.686."""
    meta = pytest.importorskip("statsmodels.stats.meta_analysis")
    y = np.array([28, 8, -3, 7, -1, 1, 18, 12], dtype=float)
    variance = np.array([15, 10, 16, 11, 9, 11, 10, 18], dtype=float) ** 2
    theirs = meta.combine_effects(y, variance, method_re="dl")
    ours = pool(y, variance, method="dl")
    assert ours is not None
    assert theirs.tau2 == pytest.approx(-44.553, abs=1e-3)
    assert theirs.mean_effect_re == pytest.approx(7.052, abs=1e-3)
    assert theirs.sd_eff_w_re == pytest.approx(3.108, abs=1e-3)
    assert ours.tau2 == 0.0
    assert ours.mean.value == pytest.approx(theirs.mean_effect_fe)
    assert (ours.mean.high - ours.mean.value) / 1.959964 == pytest.approx(theirs.sd_eff_w_fe, abs=1e-6)


def test_ppi_py_forgets_the_alternative() -> None:
    """ppi_mean_ci without lam returns the two-sided interval whatever alternative is asked for; with lam it obeys."""
    ppi = pytest.importorskip("ppi_py")
    rng = np.random.default_rng(0)
    y, f, rest = rng.random(50), rng.random(50), rng.random(200)

    def ends(side: str, **options: float) -> list[float]:
        return [float(np.ravel(end)[0]) for end in ppi.ppi_mean_ci(y, f, rest, alternative=side, **options)]

    assert ends("two-sided") == ends("larger") == ends("smaller")
    assert np.isfinite(ends("two-sided", lam=0.5)).all()
    assert ends("larger", lam=0.5)[1] == np.inf
    assert ends("smaller", lam=0.5)[0] == -np.inf


def as_published(confidence: np.ndarray, wrong: np.ndarray, alpha: float, delta: float) -> float:
    """The threshold rule of cascaded-selective-evaluation, in our words: its strictest threshold where that fails."""
    grid = [t for t in np.linspace(0, 1, 5000) if (confidence >= t).sum() >= 30]

    def bound(threshold: float) -> float:
        kept = confidence >= threshold
        return risk_bound(int(wrong[kept].sum()), int(kept.sum()), delta)

    if bound(grid[-1]) > alpha:
        return float(grid[-1])
    for threshold in reversed(grid):
        if bound(threshold - 1 / len(grid)) > alpha:
            return float(threshold)
    return float(grid[0])


def test_the_published_cascade_returns_a_threshold_that_failed() -> None:
    """A judge wrong on 30% at every confidence, 10% promised: the published rule accepts pairs in every draw, though
    its own bound forbids it; ours certifies nothing.
    """
    rng = np.random.default_rng(0)
    for _ in range(30):
        confidence, wrong = rng.uniform(0.5, 1, 200), (rng.random(200) < 0.3).astype(float)
        threshold = as_published(confidence, wrong, 0.1, 0.1)
        kept = confidence >= threshold
        assert kept.sum() >= 30
        assert risk_bound(int(wrong[kept].sum()), int(kept.sum()), 0.1) > 0.1
        assert certify(confidence, wrong, alpha=0.1, delta=0.1).threshold is None


def votes_of(prompts: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two orders of each prompt on arena-hard's five-point scale, a strong preference three times: scores, prompts."""
    quality = rng.normal(0.2, 1.2, prompts)
    scores, items = [], []
    for place in (0.2, -0.2):
        felt = quality + place + rng.normal(0, 0.6, prompts)
        times = np.where(np.abs(felt) > 1.2, 3, 1)
        scores.append(np.repeat(np.where(np.abs(felt) < 0.15, 0.5, felt > 0).astype(float), times))
        items.append(np.repeat(np.arange(prompts), times))
    return np.concatenate(scores), np.concatenate(items)


def test_votes_drawn_as_rows_cover_too_little() -> None:
    """Arena-hard's bootstrap draws votes as independent rows: its 90% interval holds the truth in under 70% of 300
    runs, and whole prompts hold it in about 90%.
    """
    rng = np.random.default_rng(0)
    truth = float(votes_of(1_000_000, rng)[0].mean())
    hits = np.zeros(2)
    for _ in range(300):
        y, items = votes_of(500, rng)
        rows = y[rng.integers(0, y.size, (100, y.size))].mean(axis=1)
        sums, sizes = np.bincount(items, weights=y), np.bincount(items)
        drawn = rng.integers(0, 500, (100, 500))
        whole = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
        for k, values in enumerate((rows, whole)):
            low, high = np.quantile(values, [0.05, 0.95])
            hits[k] += low <= truth <= high
    assert hits[0] / 300 < 0.7
    assert 0.85 < hits[1] / 300 < 0.95


def test_style_control_of_length_alone_keeps_a_model_column() -> None:
    """Arena-hard joins one-hot models and features in this order, so that its slice for length is the first model's
    column, and dropping one column as the feature leaves no model.
    """
    models, features = np.eye(3)[[0, 1, 2, 0]], np.full((4, 4), 9.0)
    joined = np.concatenate([models, features], axis=1)
    length_only = joined[:, :1]
    assert (length_only == models[:, :1]).all()
    assert length_only[:, :-1].shape[1] == 0


def test_ratings_know_copied_votes() -> None:
    """A strong vote counted three times narrows a row interval, but not ours, which is clustered by prompt."""
    rng = np.random.default_rng(1)
    y, items = votes_of(300, rng)
    names = (["new"] * y.size, ["old"] * y.size)
    by_prompt = rate(Battles(*names, y, [str(i) for i in items]), baseline="old")
    by_row = rate(Battles(*names, y, [str(i) for i in range(y.size)]), baseline="old")
    assert by_prompt is not None
    assert by_row is not None
    widths = [r["new"].strength.high - r["new"].strength.low for r in (by_prompt, by_row)]
    assert widths[0] > 1.6 * widths[1]


def test_peeking_at_a_fixed_test_raises_false_alarms() -> None:
    """A z test looked at every 50 of 2,000 even outcomes rejects in a quarter of streams or more; the confidence
    sequence in at most 5% (plus noise).
    """
    rng = np.random.default_rng(2)
    peeked = sequential = 0
    for _ in range(200):
        x = rng.choice([1.0, 0.5, 0.0], size=2000, p=[0.4, 0.2, 0.4])
        ends = np.arange(50, 2001, 50)
        means = np.cumsum(x)[ends - 1] / ends
        spread = np.sqrt((np.cumsum(x * x)[ends - 1] / ends - means**2) / ends)
        peeked += bool((np.abs(means - 0.5) > 1.96 * spread).any())
        watched = monitor(x, null=0.5, planned=2000)
        sequential += watched is not None and watched.stopped_at is not None
    assert peeked >= 50
    assert sequential <= 18


def test_river_alarms_before_the_step() -> None:
    """Page-Hinkley with river's defaults alarms before a step at 1,000 in some of 20 streams; ADWIN, which looks every
    32 values, in none, so that one alarm time says nothing.
    """
    drift = pytest.importorskip("river.drift")
    early = {"PageHinkley": 0, "ADWIN": 0}
    times = []
    for seed in range(20):
        x = np.random.default_rng(1000 + seed).normal(size=1300)
        x[1000:] += 0.5
        for name in early:
            detector = getattr(drift, name)()
            for t, value in enumerate(x.tolist(), 1):
                detector.update(value)
                if detector.drift_detected:
                    early[name] += t <= 1000
                    times += [t] if name == "ADWIN" else []
                    break
    assert early["PageHinkley"] >= 5
    assert early["ADWIN"] == 0
    assert times
    assert all(t % 32 == 0 for t in times)
