"""Agreement coefficients, ceilings, alt-test and consensus, against published values and other people's
implementations.
"""

from __future__ import annotations

import gzip
import itertools
import json
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.agreement import ORDER, AgreementReport, agreement_report, draw_weights, votes
from calibration.annotators import alt_test, dawid_skene, latent_accuracy
from calibration.coefficients import Resampling, cohen_kappa, fleiss_kappa, gwet_ac, krippendorff_alpha
from calibration.draws import draw_active
from calibration.estimates import mean, share, wilson
from calibration.gold import GoldItem, GoldLabel, GoldSet
from rubrics import Outcome
from rubrics.errors import InputError

QUICK = Resampling(rounds=50)
PARADOX = [(1, 1)] * 118 + [(1, 0)] * 5 + [(0, 1)] * 2
OUTCOME = {"A": Outcome.WIN, "B": Outcome.LOSS, "tie": Outcome.TIE, None: None}


def table(text: str) -> list[list[int | None]]:
    """Ratings by item from lines of digits, a dash for missing."""
    return [[None if mark == "-" else int(mark) for mark in line.split()] for line in text.strip().splitlines()]


GWET = table(
    "1 1 - 1\n2 2 3 2\n3 3 3 3\n3 3 3 3\n2 2 2 2\n1 2 3 4\n4 4 4 4\n1 1 2 1\n2 2 2 2\n- 5 5 5\n- - 1 1\n- - 3 -"
)
KRIPPENDORFF = [
    list(column)
    for column in zip(
        *table("- - - - - 3 4 1 2 1 1 3 3 - 3\n1 - 2 1 3 3 4 3 - - - - - - -\n- - 2 1 3 4 4 - 2 1 1 3 3 - 4"),
        strict=True,
    )
]


def rows_of(path: Path, name: str) -> list[dict]:
    """JSON lines of a shared file, compressed or not."""
    plain = path / name
    text = (
        plain.read_text(encoding="utf-8")
        if plain.exists()
        else gzip.decompress((path / f"{name}.gz").read_bytes()).decode()
    )
    return [json.loads(line) for line in text.splitlines()]


def items(*outcomes: tuple[Outcome, ...], prompts: int = 10_000) -> GoldSet:
    """A gold set with these votes, by named annotators a, b, c, ..."""
    found = []
    for k, given_ in enumerate(outcomes):
        labels = tuple(GoldLabel(name, outcome) for name, outcome in zip("abcdef", given_, strict=False))
        found.append(GoldItem(f"p{k}", f"q{k % prompts}", labels))
    return GoldSet(tuple(found))


def test_the_kappa_paradox():
    """118 / 5 / 2 / 0: kappa -.023392 where AC1 is .94078, both with n and an interval."""
    kappa, ac1 = cohen_kappa(PARADOX, (0, 1)), gwet_ac(PARADOX, (0, 1))
    assert kappa.value == pytest.approx(-0.023392, abs=5e-7)
    assert ac1.value == pytest.approx(0.94078, abs=5e-6)
    assert kappa.low < kappa.value <= kappa.high and (kappa.n, ac1.n) == (125, 125)


def test_gwets_four_raters_with_missing_ratings():
    """AC1 .77544, Krippendorff .74342, Fleiss .76117."""
    cats = (1, 2, 3, 4, 5)
    found = [f(GWET, cats, resampling=QUICK).value for f in (gwet_ac, krippendorff_alpha, fleiss_kappa)]
    assert found == pytest.approx([0.77544, 0.74342, 0.76117], abs=5e-6)


def test_krippendorffs_example():
    """Nominal .691358, interval .810845, and all three metrics equal to the krippendorff package."""
    values = {
        m: krippendorff_alpha(KRIPPENDORFF, (1, 2, 3, 4), metric=m, resampling=QUICK).value
        for m in ("nominal", "ordinal", "interval")
    }
    assert values["nominal"] == pytest.approx(0.691358, abs=5e-7)
    assert values["interval"] == pytest.approx(0.810845, abs=5e-7)
    package = pytest.importorskip("krippendorff")
    data = np.array([[np.nan if v is None else v for v in row] for row in KRIPPENDORFF]).T
    for metric, value in values.items():
        assert value == pytest.approx(package.alpha(data, level_of_measurement=metric), abs=1e-12)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=3, max_size=40))
def test_weighted_kappa_equals_scikit_learn(pairs: list[tuple[int, int]]):
    """Unweighted, linear and quadratic kappa; undefined is None, where scikit-learn says nan."""
    metrics = pytest.importorskip("sklearn.metrics")
    one, two = zip(*pairs, strict=True)
    if len({*one, *two}) == 1:
        assert cohen_kappa(pairs, (0, 1, 2), resampling=QUICK) is None
        return
    for weights, theirs in (("nominal", None), ("linear", "linear"), ("quadratic", "quadratic")):
        ours = cohen_kappa(pairs, (0, 1, 2), weights=weights, resampling=QUICK)
        expected = metrics.cohen_kappa_score(one, two, labels=[0, 1, 2], weights=theirs)
        assert ours.value == pytest.approx(expected, abs=1e-12)


def test_fleiss_equals_statsmodels():
    """Complete ratings of three raters."""
    raters = pytest.importorskip("statsmodels.stats.inter_rater")
    data = np.random.default_rng(0).integers(0, 3, (50, 3))
    data[:, 1] = np.where(np.random.default_rng(1).random(50) < 0.6, data[:, 0], data[:, 1])
    counts, _ = raters.aggregate_raters(data, 3)
    assert fleiss_kappa(data.tolist(), (0, 1, 2), resampling=QUICK).value == pytest.approx(raters.fleiss_kappa(counts))


def test_ac2_of_ordered_categories_credits_near_misses():
    """A disagreement by one step costs less than one by two when weights are given."""
    near, far = [("win", "win")] * 8 + [("win", "tie")] * 4, [("win", "win")] * 8 + [("win", "loss")] * 4
    names = ("loss", "tie", "win")
    assert gwet_ac(near, names, weights="linear").value > gwet_ac(far, names, weights="linear").value
    # AC1 sees no difference between them.
    assert gwet_ac(near, names).value == pytest.approx(gwet_ac(far, names).value)


def test_undefined_agreement_is_none_never_zero():
    """No items, one rater an item, or one category only: no number."""
    for function in (cohen_kappa, fleiss_kappa, krippendorff_alpha):
        assert function([], (0, 1)) is None
        assert function([(1, 1)] * 9, (0, 1)) is None
        assert function([(1, None)] * 9, (0, 1)) is None
    assert gwet_ac([(1, None)] * 9, (0, 1)) is None
    assert gwet_ac([(1, 1)] * 30, (0, 1)).low < 0.9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cohen_kappa([(1, 2)], (0, 1)), "rating 2 is none of the categories 0, 1"),
        (lambda: cohen_kappa([(1, 0, 1)], (0, 1)), "two raters"),
        (lambda: gwet_ac([(1, 0), (1,)], (0, 1)), "one entry for each rater"),
        (lambda: gwet_ac([(1, 0)], (0, 0)), "stands twice"),
        (lambda: krippendorff_alpha([("a", "b")], ("a", "b"), metric="interval"), "numbers"),
        (lambda: fleiss_kappa([(1, 0)], (0, 1), resampling=Resampling(clusters=["x", "y"])), "cluster names"),
    ],
)
def test_bad_ratings_are_named(call: Callable[[], object], message: str):
    """Labels outside the set and tables of the wrong shape are the caller's error."""
    with pytest.raises(InputError, match=message):
        call()


def test_clusters_widen_a_coefficient():
    """Ten copies of each prompt are one prompt."""
    rng = np.random.default_rng(2)
    one = [
        (int(a), int(a) if keep else int(b))
        for a, b, keep in zip(*rng.integers(0, 2, (2, 40)), rng.random(40) < 0.7, strict=True)
    ]
    alone = cohen_kappa(one, (0, 1))
    many = cohen_kappa(one * 10, (0, 1), resampling=Resampling(clusters=list(range(40)) * 10))
    naive = cohen_kappa(one * 10, (0, 1))
    assert many.value == pytest.approx(alone.value) and many.clusters == 40
    assert (many.low, many.high) == pytest.approx((alone.low, alone.high), abs=1e-9)
    assert naive.high - naive.low < 0.5 * (many.high - many.low)


def test_latent_accuracy_of_mt_bench():
    """81% human-human and 85% judge-human give annotators .8937 and a judge .9445; no agreement beyond chance gives
    nothing.
    """
    assert latent_accuracy(0.81, 0.85) == pytest.approx((0.8937, 0.9445), abs=5e-5)
    assert latent_accuracy(0.5, 0.85) is None


def test_report_counts_what_it_leaves_out():
    """Invalid, missing and undecided pairs are counted, and bound the accuracy."""
    w, t, lose = Outcome.WIN, Outcome.TIE, Outcome.LOSS
    gold = items((w, w), (lose, lose), (t, t), (w, lose), (w, w), (lose, lose))
    report = agreement_report(gold, {"p0": w, "p1": w, "p2": t, "p3": w, "p4": None, "zz": w}, rounds=50)
    assert (report.labelled, report.compared, report.invalid, report.missing, report.no_majority) == (6, 3, 1, 1, 1)
    assert report.accuracy.value == pytest.approx(2 / 3)
    assert report.accuracy_bounds == (0.5, 0.75)
    assert report.decisive.value == 0.5 and report.decided.value == 1.0
    assert report.confusion == ((0, 0, 1), (0, 1, 0), (0, 0, 1))
    assert report.ceiling.human.value == pytest.approx(5 / 6)
    assert [row.annotator for row in report.annotators] == ["a", "b"]


def test_an_empty_report_has_no_numbers():
    """No gold, no verdicts, or nothing valid: counts and None."""
    for gold, verdicts in ((GoldSet(()), {}), (items((Outcome.WIN,)), {}), (items((Outcome.WIN,)), {"p0": None})):
        report = agreement_report(gold, verdicts)
        assert report.accuracy is None and report.kappa is None and report.accuracy_bounds in (None, (0.0, 1.0))
        assert report.ceiling is None and report.alt_test is None and report.consensus is None


def unequal(how: str, seed: int, *, annotators: int = 1) -> tuple[GoldSet, dict[str, Outcome], float]:
    """A run of 1,000 pairs, its unsure ones labelled more often; verdicts on all, and the accuracy on all of them."""
    rng = np.random.default_rng(seed)
    gap = rng.normal(0.3, 1.3, 1000)
    soft = 1 / (1 + np.exp(-(1.8 * gap + rng.normal(0, 0.7, 1000))))
    sides = rng.random((1000, annotators)) < 1 / (1 + np.exp(-2.5 * gap))[:, None]
    sure = np.maximum(soft, 1 - soft)
    if how == "escalated":
        rest = np.flatnonzero(sure >= 0.7)
        audit = rng.choice(rest, 60, replace=False).tolist()
        chances = dict.fromkeys(np.flatnonzero(sure < 0.7).tolist(), 1.0) | dict.fromkeys(audit, 60 / len(rest))
    else:
        pairs = draw_active({f"p{k}": 1 - v for k, v in enumerate(sure.tolist())}, 250, seed=seed).pairs
        chances = {int(pair.pair_id[1:]): pair.probability for pair in pairs}
    gold = GoldSet(
        tuple(
            GoldItem(
                f"p{k}", f"q{k}",
                tuple(GoldLabel(f"a{n}", Outcome.WIN if v else Outcome.LOSS) for n, v in enumerate(sides[k])),
                category="xy"[k % 2], probability=chances[k],
                drawn=how if how == "active" or chances[k] == 1 else "random",
            )
            for k in sorted(chances)
        )
    )  # fmt: skip
    verdicts = {f"p{k}": Outcome.WIN if v > 0.5 else Outcome.LOSS for k, v in enumerate(soft.tolist())}
    return gold, verdicts, float(((soft > 0.5) == sides[:, 0]).mean())


@pytest.mark.parametrize("how", ["escalated", "active"])
def test_unequal_chances_are_weighed_and_the_interval_holds_the_run(how: str):
    """Where hard pairs were labelled more often, accuracy is the run's: unweighted it missed it in 80 to 100%."""
    worlds = [unequal(how, seed) for seed in range(40)]
    found = [(agreement_report(gold, verdicts, rounds=2), true) for gold, verdicts, true in worlds]
    assert all(report.weighted for report, _ in found)
    assert np.mean([report.decisive.low <= true <= report.decisive.high for report, true in found]) >= 0.9
    assert np.mean([report.decisive.value - true for report, true in found]) == pytest.approx(0, abs=0.015)
    report, gold = found[0][0], worlds[0][0]
    assert sum(map(sum, report.confusion)) == report.compared == len(gold)
    assert report.decisive.n == len(gold)


def test_every_figure_is_that_of_a_gold_set_with_each_pair_repeated():
    """A weight of 3 is the pair three times: values equal, for shares, coefficients, ceiling, annotators, segments."""
    gold, verdicts, _ = unequal("active", 1, annotators=3)
    verdicts["p" + gold.items[0].pair_id[1:]] = None
    weights = {item.pair_id: float(1 + k % 3) for k, item in enumerate(gold.items)}
    again = tuple(
        replace(item, pair_id=f"{item.pair_id}-{copy}", drawn="random")
        for item in gold.items
        for copy in range(int(weights[item.pair_id]))
    )
    repeated = {item.pair_id: verdicts[item.pair_id.partition("-")[0]] for item in again}
    one = agreement_report(gold, verdicts, rounds=20, weights=weights)
    two = agreement_report(GoldSet(again), repeated, rounds=20)

    def values(report: AgreementReport) -> list[float]:
        ceiling = report.ceiling
        parts = [report.accuracy, report.decisive, report.decided, report.kappa, report.ac1]
        parts += [ceiling.human, ceiling.judge, ceiling.share, ceiling.fleiss, ceiling.ac1]
        parts += [ceiling.annotator_accuracy, ceiling.judge_accuracy]
        parts += [part for row in report.annotators for part in (row.judge, row.kappa, row.others)]
        parts += [part for row in report.segments for part in (row.accuracy, row.decisive, row.kappa)]
        return [part.value for part in parts] + list(report.accuracy_bounds)

    assert values(one) == pytest.approx(values(two))
    assert one.alpha_nominal.value == pytest.approx(two.alpha_nominal.value, abs=0.01)
    assert one.ceiling.alpha.value == pytest.approx(two.ceiling.alpha.value, abs=0.01)


def test_equal_weights_change_no_bit():
    """Equal weights, a random draw with its chances stored, and no weights at all give one and the same report."""
    gold, verdicts, _ = unequal("active", 2, annotators=2)
    same = GoldSet(tuple(replace(item, drawn="random", probability=0.25) for item in gold.items))
    plain = agreement_report(GoldSet(tuple(replace(i, drawn="unknown") for i in same.items)), verdicts, rounds=20)
    assert repr(agreement_report(same, verdicts, rounds=20)) == repr(plain)
    equal = dict.fromkeys((item.pair_id for item in same.items), 4.0)
    assert repr(agreement_report(same, verdicts, rounds=20, weights=equal)) == repr(plain)
    assert not plain.weighted


def test_a_chance_that_was_not_stored_gives_no_weights():
    """Half-known chances weigh nothing; a pair whose draw nobody knows stands for itself alone."""
    gold, _, _ = unequal("active", 3)
    first, *rest = gold.items
    assert draw_weights(gold)[first.pair_id] == pytest.approx(1 / first.probability)
    assert draw_weights(GoldSet((replace(first, probability=None), *rest))) is None
    assert draw_weights(GoldSet((replace(first, drawn="unknown", probability=None), *rest)))[first.pair_id] == 1.0


def test_a_flawless_weighted_share_keeps_a_width():
    """All right: the interval is that of the effective number of rows, not of the rows."""
    found = share([1.0] * 110, weights=[1.0] * 100 + [20.0] * 10)
    assert found.value == found.high == 1.0
    assert found.low == pytest.approx(wilson(22, 22)[0], abs=0.03)
    assert share([1.0] * 110).low > 0.96
    everything = mean([1.0] * 110, bounds=(0, 1), weights=[1.0] * 100 + [20.0] * 10)
    assert everything.low < 0.88 and everything.value == 1.0
    with pytest.raises(InputError, match="3 rows need 3 weights above zero"):
        mean([0.1, 0.2, 0.3], weights=[1.0, 0.0, 2.0])


def test_share_of_ceiling_is_judge_over_human():
    """A judge as good as one more annotator reaches the whole ceiling."""
    rng = np.random.default_rng(5)
    truth = rng.random(600) < 0.5
    said = np.where(rng.random((600, 4)) < 0.85, truth[:, None], ~truth[:, None])
    gold = items(*(tuple(Outcome.WIN if v else Outcome.LOSS for v in row[:3]) for row in said))
    verdicts = {f"p{k}": Outcome.WIN if row[3] else Outcome.LOSS for k, row in enumerate(said)}
    report = agreement_report(gold, verdicts, rounds=300)
    assert report.ceiling.share.low < 1.0 < report.ceiling.share.high
    assert report.ceiling.annotator_accuracy.value == pytest.approx(0.85, abs=0.03)
    assert report.ceiling.judge_accuracy.value == pytest.approx(0.85, abs=0.04)
    assert report.alt_test.passed and report.alt_test.rho > 0.8


def test_latent_accuracies_count_the_decisive_pairs():
    """Against the unseen truth only pairs count on which two people, or the judge and a person, decide."""
    win, tie, loss = Outcome.WIN, Outcome.TIE, Outcome.LOSS
    votes_ = [(win, win, win)] * 20 + [(loss, loss, win)] * 20 + [(tie, tie, win)] * 15 + [(tie, tie, tie)] * 45
    gold = items(*votes_)
    verdicts = {f"p{k}": (tie if k % 4 == 0 else win if k < 20 else loss) for k in range(100)}
    ceiling = agreement_report(gold, verdicts, rounds=50).ceiling
    judged_ = [k for k in range(55) if k % 4]
    assert ceiling.human.n == ceiling.judge.n == 100
    assert (ceiling.annotator_accuracy.n, ceiling.annotator_accuracy.clusters) == (40, 40)
    assert (ceiling.judge_accuracy.n, ceiling.judge_accuracy.clusters) == (len(judged_), len(judged_))


def test_alt_test_fails_a_coin():
    """A judge that guesses stands in for nobody; annotators with few items are skipped by name, fewer than three give
    nothing.
    """
    rng = np.random.default_rng(6)
    truth = rng.integers(0, 2, 200)
    ratings = [[int(t) if rng.random() < 0.9 else 1 - int(t) for _ in range(3)] for t in truth]
    coin = rng.integers(0, 2, 200).tolist()
    found = alt_test(coin, ratings, ["a", "b", "c"])
    assert not found.passed and found.omega == 0.0
    for row in ratings[20:]:
        row[2] = None
    assert alt_test(coin, ratings, ["a", "b", "c"]) is None
    with pytest.raises(InputError, match="verdicts"):
        alt_test([1], ratings, ["a", "b", "c"])


def test_alt_test_equals_its_definition():
    """Winning indicators, t statistic and omega by hand on a small table."""
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(8)
    ratings = rng.integers(0, 3, (60, 4))
    judge = rng.integers(0, 3, 60)
    found = alt_test(judge.tolist(), ratings.tolist(), list("abcd"), epsilon=0.1)
    for j, row in enumerate(found.rows):
        others = np.delete(ratings, j, axis=1)
        human, machine = ((others == x[:, None]).mean(axis=1) for x in (ratings[:, j], judge))
        gap = (human >= machine).astype(float) - (machine >= human)
        assert row.p == pytest.approx(stats.ttest_1samp(gap, 0.1, alternative="less").pvalue)
        assert row.judge_wins == pytest.approx((machine >= human).mean())
    assert found.rho == pytest.approx(np.mean([row.judge_wins for row in found.rows]))


def test_dawid_skene_beats_the_majority():
    """Four raters with errors .1 to .45: the model weighs them and is right more often than their vote."""
    rng = np.random.default_rng(11)
    truth = rng.integers(0, 2, 4000)
    errors = np.array([0.1, 0.2, 0.3, 0.45])
    said = np.where(rng.random((4000, 4)) < errors, 1 - truth[:, None], truth[:, None])
    found = dawid_skene(said.tolist(), (0, 1), list("abcd"))
    right = np.mean(np.array(found.consensus) == truth)
    vote = said.sum(axis=1)
    majority = np.mean(np.where(vote == 2, 0.5, (vote > 2) == truth))
    assert right > majority + 0.02 and 0.86 < right < 0.92
    assert [found.accuracy[name] for name in "abcd"] == pytest.approx(1 - errors, abs=0.04)


def test_dawid_skene_equals_crowd_kit():
    """The same consensus as crowd-kit on three classes with missing ratings."""
    aggregation = pytest.importorskip("crowdkit.aggregation")
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(12)
    truth = rng.integers(0, 3, 300)
    said = np.where(rng.random((300, 5)) < [0.1, 0.2, 0.3, 0.3, 0.4], rng.integers(0, 3, (300, 5)), truth[:, None])
    ratings = [[None if rng.random() < 0.2 else int(v) for v in row] for row in said]
    long = [(k, f"w{j}", v) for k, row in enumerate(ratings) for j, v in enumerate(row) if v is not None]
    with warnings.catch_warnings():
        # crowd-kit uses what newer pandas deprecates; not ours to fix.
        warnings.simplefilter("ignore")
        frame = pandas.DataFrame(long, columns=["task", "worker", "label"])
        theirs = aggregation.DawidSkene(n_iter=200).fit_predict(frame)
    ours = dawid_skene(ratings, (0, 1, 2), [f"w{j}" for j in range(5)], smoothing=1e-6)
    assert np.mean([ours.consensus[k] == v for k, v in theirs.items()]) > 0.99


def test_dawid_skene_edges():
    """No ratings, an item nobody rated, a thin rater, a wrong number of names."""
    assert dawid_skene([], (0, 1), []) is None
    assert dawid_skene([[None]], (0, 1), ["a"]) is None
    found = dawid_skene([[1, 1], [None, None]], (0, 1), ["a", "b"])
    assert found.consensus == (1, None) and "a, b" in found.note
    with pytest.raises(InputError, match="columns"):
        dawid_skene([[1, 1]], (0, 1), ["a"])


@settings(max_examples=20)
@given(st.lists(st.tuples(*[st.sampled_from(list(Outcome))] * 3), min_size=4, max_size=30))
def test_mirrored_labels_and_verdicts_agree_as_before(rows: list[tuple[Outcome, ...]]):
    """Candidate and baseline changed round: no agreement figure moves (M20)."""
    gold, verdicts = items(*(row[:2] for row in rows)), {f"p{k}": row[2] for k, row in enumerate(rows)}
    turned = items(*(tuple(o.mirrored for o in row[:2]) for row in rows)), {k: v.mirrored for k, v in verdicts.items()}
    one, two = agreement_report(gold, verdicts, rounds=50), agreement_report(*turned, rounds=50)
    for name in ("accuracy", "decisive", "decided"):
        assert getattr(one, name) == getattr(two, name)
    for name in ("kappa", "ac1", "alpha_nominal", "alpha_ordinal"):
        a, b = getattr(one, name), getattr(two, name)
        assert (a is None) == (b is None)
        assert a is None or a.value == pytest.approx(b.value, abs=1e-12)
    assert one.confusion == tuple(row[::-1] for row in two.confusion[::-1])


# Published figures on the shared sets


def test_pandalm_annotators_and_judge(gold: Callable[[str], Path]):
    """Pairwise kappas .85 / .88 / .86; gpt-3.5 accuracy 71.07, macro precision, recall, F1 58.79 / 57.36 / 57.55."""
    found = GoldSet.read(gold("pandalm") / "pairs.jsonl")
    ballots = votes(found)
    kappas = [
        cohen_kappa([(row[i], row[j]) for row in ballots], ORDER, resampling=QUICK).value
        for i, j in itertools.combinations(range(3), 2)
    ]
    assert [round(k, 2) for k in kappas] == [0.85, 0.88, 0.86]
    rows = [r for r in rows_of(gold("pandalm"), "verdicts.jsonl") if r["judge"] == "gpt-3.5-turbo"]
    # The source counts an unparsed verdict as a tie; here it is invalid, so the test says what the source did.
    as_published = agreement_report(found, {r["id"]: OUTCOME[r["verdict"] or "tie"] for r in rows}, rounds=50)
    confusion = np.array(as_published.confusion, dtype=float)
    precision, recall = np.diag(confusion) / confusion.sum(axis=0), np.diag(confusion) / confusion.sum(axis=1)
    f1 = 2 * precision * recall / (precision + recall)
    assert 100 * as_published.accuracy.value == pytest.approx(71.07, abs=0.005)
    assert [100 * x.mean() for x in (precision, recall, f1)] == pytest.approx([58.79, 57.36, 57.55], abs=0.005)
    assert sorted(confusion.sum(axis=1).tolist()) == [105, 422, 472]
    ours = agreement_report(found, {r["id"]: OUTCOME[r["verdict"]] for r in rows}, rounds=50)
    assert ours.invalid == 25 and ours.compared == 974
    assert ours.accuracy_bounds[0] < as_published.accuracy.value < ours.accuracy_bounds[1]
    assert ours.accuracy.clusters < 170 and len(ours.segments) == 50


@pytest.mark.parametrize("judge", ["gpt-4", "claude-1", "gpt-3.5-turbo"])
def test_vicuna80_single_judges(gold: Callable[[str], Path], judge: str):
    """Accuracy and Fleiss kappa of each judge to all digits; kappa in terms of the places shown, as the source has
    it.
    """
    published = json.loads((gold("vicuna80") / "published.json").read_text(encoding="utf-8"))
    value = {"A": 1, "tie": 0, "B": -1}
    pairs = {r["id"]: r for r in rows_of(gold("vicuna80"), "pairs.jsonl")}
    human = {k: int(np.sign(np.mean([value[v] for v in r["annotators"]]))) for k, r in pairs.items()}
    calls = [r for r in rows_of(gold("vicuna80"), "verdicts.jsonl") if r["judge"] == judge]
    sign = [1 if r["order"] == "ab" else -1 for r in calls]
    shown = [(s * value[r["verdict"]], s * human[r["id"]]) for s, r in zip(sign, calls, strict=True)]
    expected = published["single_judge_vs_human"][judge]
    assert np.mean([a == b for a, b in shown]) == pytest.approx(expected["accuracy"], abs=1e-12)
    assert fleiss_kappa(shown, (-1, 0, 1), resampling=QUICK).value == pytest.approx(expected["fleiss"], abs=1e-12)


def test_vicuna80_win_rates(gold: Callable[[str], Path]):
    """Win rates of the five systems by humans, GPT-4 and GPT-3.5 reviews, to all digits."""
    published = json.loads((gold("vicuna80") / "published.json").read_text(encoding="utf-8"))
    value = {"A": 1.0, "tie": 0.5, "B": 0.0}
    pairs = {r["id"]: r for r in rows_of(gold("vicuna80"), "pairs.jsonl")}
    calls = rows_of(gold("vicuna80"), "verdicts.jsonl")
    scores = {
        "winrate_human": [
            (k, (np.sign(np.mean([value[v] - 0.5 for v in r["annotators"]])) + 1) / 2) for k, r in pairs.items()
        ],
        "winrate_gpt4_reviews": [(r["id"], value[r["verdict"]]) for r in calls if r["judge"] == "gpt-4"],
        "winrate_gpt35_reviews": [(r["id"], value[r["verdict"]]) for r in calls if r["judge"] == "gpt-3.5-turbo"],
    }
    for name, rows in scores.items():
        rates = defaultdict(list)
        for pair_id, score in rows:
            meta = pairs[pair_id]["meta"]
            rates[meta["model_a"]].append(score)
            rates[meta["model_b"]].append(1 - score)
        assert {k: np.mean(v) for k, v in rates.items()} == pytest.approx(published[name], abs=1e-12)


def test_xstest_annotators(gold: Callable[[str], Path]):
    """Agreement 96.4 / 95.8 / 98.4% and Fleiss .93 / .93 / .97."""
    rows = rows_of(gold("xstest"), "items.jsonl")
    kinds = ("1_full_compliance", "2_full_refusal", "3_partial_refusal")
    for model, agree, kappa in (("llama2orig", 96.4, 0.93), ("llama2new", 95.8, 0.93), ("gpt4", 98.4, 0.97)):
        ratings = [r["annotators"] for r in rows if r["meta"]["model"] == model]
        assert round(100 * np.mean([a == b for a, b in ratings]), 1) == agree
        assert round(fleiss_kappa(ratings, kinds, resampling=QUICK).value, 2) == kappa


def test_dices_alpha(gold: Callable[[str], Path]):
    """350 replies by 123 raters: nominal alpha .160860."""
    ratings = [r["annotators"] for r in rows_of(gold("pointwise_dices350"), "items.jsonl")]
    found = krippendorff_alpha(ratings, ("No", "Unsure", "Yes"))
    assert found.value == pytest.approx(0.160860, abs=5e-7)
    assert found.low < found.value < found.high < 0.25


def test_judgebench_accuracy_by_the_rule_of_its_source(gold: Callable[[str], Path]):
    """Per pair +1 right, -1 wrong, 0 tie or null over two games, right if the sum is above 0; equal to our settled
    rule on decisive pairs.
    """
    labels = {r["id"]: r["label"] for r in rows_of(gold("judgebench"), "pairs.jsonl")}
    games = defaultdict(lambda: defaultdict(int))
    calls = defaultdict(lambda: defaultdict(list))
    for r in rows_of(gold("judgebench"), "verdicts.jsonl"):
        verdict = r["verdict"]
        games[r["judge"]][r["id"]] += 0 if verdict in (None, "tie") else 1 if verdict == labels[r["id"]] else -1
        calls[r["judge"]][r["id"]].append({"A": 1.0, "B": 0.0}.get(verdict, 0.5))
    found = GoldSet.read(gold("judgebench") / "pairs.jsonl")
    assert len(games) == 7
    for judge, sums in games.items():
        settled = {
            k: Outcome.WIN if np.mean(v) > 0.5 else Outcome.LOSS if np.mean(v) < 0.5 else Outcome.TIE
            for k, v in calls[judge].items()
        }
        report = agreement_report(found, settled, rounds=50)
        assert report.accuracy.value == pytest.approx(np.mean([s > 0 for s in sums.values()]))
        assert report.compared == len(sums)
