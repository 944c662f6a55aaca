"""The calibration report: which labels count, what the verdict says, what is withheld and why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration.belief import more_labels
from calibration.confidence import Calibration
from calibration.evidence import Evidence, Said, match
from calibration.gold import GoldItem, GoldLabel, GoldSet
from calibration.provenance import Judged, JudgedRun, Refused
from calibration.report import CalibrationReport, Earlier, calibration_report
from calibration.winrate import win_rate
from rubrics import Outcome
from rubrics.errors import InputError

OUTCOMES = (Outcome.WIN, Outcome.TIE, Outcome.LOSS)


def outcome_of(preference: float | None) -> Outcome | None:
    """The side of a preference."""
    if preference is None:
        return None
    return Outcome.TIE if preference == 0.5 else Outcome.WIN if preference > 0.5 else Outcome.LOSS


def evidence_of(
    preferences: list[float | None], *, shift: float = 0.0, judge: str = "judge@1", lengths: list[int] | None = None
) -> Evidence:
    """A run of one pair a prompt; ``shift`` moves each call towards the place that is shown first."""
    rows = tuple(
        Judged(
            f"p{k}", f"q{k}",
            *((None, None, None) if p is None else (p, 0.0, 1 - p)),
            category="code" if k % 2 else "chat",
            candidate_length=100 + (lengths[k] if lengths else 7 * (k % 13)),
            baseline_length=120,
        )
        for k, p in enumerate(preferences)
    )  # fmt: skip
    said = []
    for p in preferences:
        calls = (None, None) if p is None else (min(max(p + shift, 0), 1), min(max(p - shift, 0), 1))
        said.append(Said(outcome_of(p), (outcome_of(calls[0]),), (outcome_of(calls[1]),), calls))
    run = JudgedRun(rows, candidate="new", baseline="old", rubric="helpfulness@1")
    return Evidence(run, tuple(said), rubric="helpfulness@1", judge=judge)


def gold_of(outcomes: dict[int, list[Outcome]], **changes: object) -> GoldSet:
    """Labels by row, one annotator a value, drawn at random unless said otherwise."""
    return GoldSet(
        tuple(
            replace(
                GoldItem(
                    f"p{k}", f"q{k}", tuple(GoldLabel(f"a{n}", value) for n, value in enumerate(values)),
                    candidate="new", baseline="old", rubric="helpfulness@1", drawn="random",
                ),
                **changes,
            )
            for k, values in outcomes.items()
        )
    )  # fmt: skip


def world(n: int = 400, labels: int = 150, *, skill: float = 2.0, seed: int = 0) -> tuple[Evidence, GoldSet]:
    """A judge with some skill, and humans with a little noise, two on every pair that is labelled."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0.1, 1.0, n)
    preference = 1 / (1 + np.exp(-(skill * truth + rng.normal(0, 1.0, n))))
    chosen = rng.permutation(n)[:labels]

    def human(k: int) -> Outcome:
        value = truth[k] + rng.normal(0, 0.3)
        return Outcome.TIE if abs(value) < 0.1 else Outcome.WIN if value > 0 else Outcome.LOSS

    return evidence_of([float(p) for p in preference]), gold_of({int(k): [human(k), human(k)] for k in sorted(chosen)})


def quick(evidence: Evidence, gold: GoldSet, **options: object) -> CalibrationReport:
    """A report with few bootstrap rounds."""
    return calibration_report(evidence, gold, rounds=60, **options)  # type: ignore[arg-type]


def test_a_judge_that_follows_people_is_believed_and_the_rate_is_theirs() -> None:
    """A skilled, unbiased judge with enough random labels reads BELIEVE or names its doubts; the rate is win_rate's."""
    evidence, gold = world()
    report = quick(evidence, gold)
    assert report.belief.word in ("BELIEVE", "WITH CARE")
    assert report.win_rate == win_rate(evidence.run, gold)
    assert any("People would give the candidate" in sentence for sentence in report.belief.sentences)
    assert isinstance(report.confidence.fitted, Calibration)
    assert report.confidence.fitted.require(rubric="helpfulness@1", judge="judge@1").gold == report.identity["gold"]
    assert report.length.human is not None and not isinstance(report.length.human, Refused)
    assert report.length.human.method.startswith("prediction-powered logistic, 150 labels")


def test_advice_to_label_more_counts_no_pair_that_is_labelled_or_has_no_verdict() -> None:
    """Of 40 pairs, 3 have no verdict and 30 with one are labelled, half of them split: 7 are left to label."""
    draws = np.random.default_rng(5).random(40)
    preferences = [None if k in (0, 38, 39) else float(p) for k, p in enumerate(draws)]
    split = [Outcome.WIN, Outcome.LOSS]
    report = quick(
        evidence_of(preferences), gold_of({k: split if k % 2 else [OUTCOMES[2 * (k % 3 > 0)]] * 2 for k in range(31)})
    )
    assert (report.agreement.labelled, report.agreement.compared, report.win_rate.invalid) == (31, 15, 3)
    assert more_labels(report).startswith("judge more prompts: only 7 pairs are left to label in this run")
    assert "only 7 pairs are left" in report.belief.sentences[0]


def test_a_category_on_which_people_always_split_has_no_slope() -> None:
    """Each of its prompts says one half, so nothing varies between them; the report is made all the same."""
    evidence = evidence_of([float(p) for p in np.random.default_rng(5).random(60)])
    split = [Outcome.WIN, Outcome.LOSS]
    report = quick(evidence, gold_of({k: split if k % 2 else [OUTCOMES[2 * (k % 3 > 0)]] * 2 for k in range(60)}))
    (code,) = (part for part in report.confidence.slices if part.name.endswith("code"))
    assert code.raw.slope is None


def test_a_coin_is_not_believed() -> None:
    """A judge without skill reads DO NOT BELIEVE, with the figure that says so."""
    rng = np.random.default_rng(3)
    gold = gold_of({k: [OUTCOMES[2 * int(rng.integers(2))]] for k in range(200)})
    report = quick(evidence_of([float(p) for p in rng.random(200)]), gold)
    assert report.belief.word == "DO NOT BELIEVE"
    assert "not shown to be better than a coin" in report.belief.sentences[0]


def test_an_inverted_judge_is_not_believed() -> None:
    """A judge that prefers what people dislike is never believed, however sure its figures are."""
    evidence, gold = world()
    inverted = evidence_of([1 - float(p) for p in evidence.preferences])
    assert quick(inverted, gold).belief.word == "DO NOT BELIEVE"


@pytest.mark.parametrize("labels", [0, 1, 29])
def test_too_few_labels_say_nothing(labels: int) -> None:
    """Below thirty labelled pairs the verdict is UNKNOWN, says how many more, and no corrected rate is given."""
    evidence, gold = world(labels=labels)
    report = quick(evidence, gold)
    assert report.belief.word == "UNKNOWN"
    assert "below 30" in report.belief.sentences[0]
    assert isinstance(report.win_rate.corrected, Refused)
    assert any(assumption.holds is False and assumption.costs for assumption in report.ledger)


def test_labels_about_other_answers_are_left_out_and_counted() -> None:
    """Other pairs, candidates, rubrics and answer lengths say nothing about what this judge saw."""
    evidence, gold = world(labels=60)
    odd = [
        replace(gold.items[0], pair_id="elsewhere"),
        replace(gold.items[1], candidate="older"),
        replace(gold.items[2], rubric="brevity@1"),
        replace(gold.items[3], candidate_length=1),
    ]
    matched = match(evidence, GoldSet((*odd, *gold.items[4:])))
    assert len(matched.gold) == 56
    assert matched.left_out == {
        "another candidate or baseline": 1,
        "another rubric": 1,
        "answers of another length under the same pair id": 1,
        "pairs that are not in this run": 1,
    }
    report = quick(evidence, GoldSet((*odd, *gold.items[4:])))
    assert sum(report.left_out.values()) == 4
    assert next(a for a in report.ledger if a.name == "labels of these answers").holds is False


def test_stale_labels_withhold_the_rate() -> None:
    """Labels of an older candidate give no corrected rate, and the ledger names what that costs."""
    evidence, gold = world()
    report = quick(evidence, GoldSet(tuple(replace(item, candidate="older") for item in gold.items)))
    assert isinstance(report.win_rate.corrected, Refused) and report.win_rate.corrected.kind == "stale"
    stale = next(assumption for assumption in report.ledger if assumption.name == "labels of these answers")
    assert stale.holds is False and stale.costs == "corrected win rate"


def test_labels_without_a_draw_measure_the_judge_but_not_the_rate() -> None:
    """Hand-picked labels still give agreement and a calibration; the rate is withheld."""
    evidence, gold = world()
    report = quick(evidence, GoldSet(tuple(replace(item, drawn="unknown") for item in gold.items)))
    assert report.agreement.accuracy is not None
    assert isinstance(report.confidence.fitted, Calibration)
    assert isinstance(report.win_rate.corrected, Refused)
    assert report.win_rate.corrected.kind == "not_random"
    assert next(a for a in report.ledger if a.name == "random draw").holds is False


@pytest.mark.parametrize("drawn", ["unknown", "escalated"])
def test_labels_that_nobody_drew_certify_nothing(drawn: str) -> None:
    """Hand-picked easy pairs, or the escalated ones alone, give no certificate, no threshold and no certified rate."""
    evidence, gold = world(n=900, labels=500, skill=4.0)
    sure = np.maximum(evidence.preferences, 1 - evidence.preferences) > 0.9
    easy = GoldSet(tuple(replace(item, drawn=drawn) for item in gold.items if sure[int(item.pair_id[1:])]))
    report = quick(evidence, easy)
    card = report.selective
    assert isinstance(card.certificates, Refused) and card.certificates.kind == "not_random"
    assert "judge label" in card.certificates.fix
    assert (card.abstained, card.curve, card.cheapest, card.cost, card.n) == ((), (), None, 1.0, 0)
    assert isinstance(report.confidence.fitted, Calibration) and report.confidence.fitted.certified == {}
    drawn_well = quick(evidence, gold)
    assert isinstance(drawn_well.confidence.fitted, Calibration) and set(drawn_well.confidence.fitted.certified)


def chances_of(evidence: Evidence) -> np.ndarray:
    """A draw that takes unsure pairs five times as often as sure ones."""
    sure = np.maximum(evidence.preferences, 1 - evidence.preferences) > 0.8
    return np.where(sure, 0.1, 0.5)


def test_a_draw_of_hard_pairs_is_thinned_before_anything_is_certified() -> None:
    """With unequal chances certificates rest on an equal-chance part; its coverage is the run's, not the labels'."""
    evidence, everything = world(n=4000, labels=4000, skill=4.0)
    chances = chances_of(evidence)
    picked = np.random.default_rng(2).random(4000) < chances
    gold = GoldSet(
        tuple(
            replace(item, drawn="active", probability=float(chances[k]))
            for k, item in enumerate(everything.items)
            if picked[k]
        )
    )
    card = quick(evidence, gold).selective
    assert not isinstance(card.certificates, Refused)
    assert card.n + card.thinned == picked.sum() and card.thinned > 300
    confidence = np.maximum(evidence.preferences, 1 - evidence.preferences)
    for point in card.curve:
        assert point.coverage == pytest.approx(float((confidence >= point.threshold).mean()), abs=0.08)
    assert quick(evidence, everything).selective.thinned == 0


def test_agreement_speaks_of_the_run_when_hard_pairs_were_drawn_more_often() -> None:
    """Labels of unsure pairs weigh 1/chance, so that accuracy is the run's, and the report says that they do."""
    evidence, everything = world(n=4000, labels=4000, skill=4.0)
    chances = chances_of(evidence)
    true = quick(evidence, everything).agreement
    picked = np.random.default_rng(2).random(4000) < chances
    items = [
        replace(item, drawn="active", probability=float(chances[k]))
        for k, item in enumerate(everything.items)
        if picked[k]
    ]
    found = quick(evidence, GoldSet(tuple(items))).agreement
    plain = quick(evidence, GoldSet(tuple(replace(item, drawn="random") for item in items))).agreement
    assert found.weighted and not plain.weighted and not true.weighted
    for name in ("accuracy", "decisive", "kappa", "ac1", "alpha_ordinal"):
        whole, mine, naive = (getattr(side, name) for side in (true, found, plain))
        assert mine.low <= whole.value <= mine.high and not naive.low <= whole.value <= naive.high, name
        assert mine.n == naive.n
    assert found.confusion == plain.confusion


def test_a_lean_to_one_place_is_a_doubt() -> None:
    """A judge whose calls follow the place is WITH CARE, says which place, and has a q value for it."""
    evidence, gold = world()
    leaning = evidence_of([float(p) for p in evidence.preferences], shift=0.3)
    report = quick(leaning, gold)
    assert report.belief.word == "WITH CARE"
    assert any("shown first" in sentence for sentence in report.belief.sentences)
    assert report.bias.q["position"] < 0.05


def test_a_taste_for_length_beyond_the_human_one_is_found() -> None:
    """A judge that follows length where people do not has a length slope with a small q value."""
    rng = np.random.default_rng(5)
    lengths = [int(v) for v in rng.integers(0, 400, 300)]
    truth = rng.normal(0, 1, 300)
    preference = 1 / (1 + np.exp(-(truth + 0.02 * (np.array(lengths) - 200))))
    gold = gold_of({k: [Outcome.WIN if truth[k] > 0 else Outcome.LOSS] for k in range(300)}, drawn="all")
    report = quick(evidence_of([float(p) for p in preference], lengths=lengths), gold)
    assert [style.feature for style in report.bias.styles] == ["length"]
    length = report.bias.styles[0]
    assert length.bias.low > 0 and report.bias.q["length"] < 0.05
    assert any("It favours length more than people do, by " in sentence for sentence in report.belief.sentences)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_constant_judge_gives_a_report_without_a_crash(value: float) -> None:
    """A judge that always says the same has no skill, and nothing is computed that does not exist."""
    _, gold = world(labels=120)
    report = quick(evidence_of([value] * 400), gold)
    assert report.belief.word in ("DO NOT BELIEVE", "UNKNOWN")


def test_all_ties_and_no_verdict_at_all_are_unknown() -> None:
    """A gold set of ties has no decisive pair to measure on; a run without verdicts has none to measure."""
    evidence, gold = world(labels=80)
    ties = GoldSet(tuple(replace(item, labels=(GoldLabel("a", Outcome.TIE),)) for item in gold.items))
    assert quick(evidence, ties).belief.word == "UNKNOWN"
    silent = quick(evidence_of([None] * 400), gold)
    assert silent.belief.word == "UNKNOWN"
    assert silent.win_rate.judge is None and silent.win_rate.invalid == 400
    assert next(a for a in silent.ledger if a.name == "verdicts").holds is False


def test_a_gold_set_whose_right_answer_is_always_first_is_said() -> None:
    """Labels that all lie on one side are a failed assumption, not a perfect judge."""
    evidence, gold = world(labels=80)
    onesided = GoldSet(tuple(replace(item, labels=(GoldLabel("a", Outcome.WIN),)) for item in gold.items))
    report = quick(evidence, onesided)
    assert any(a.name == "sides shuffled" and a.holds is False for a in report.ledger)


def test_a_judge_that_moved_since_an_earlier_run_is_found() -> None:
    """The same anchors judged with a shift break the assumption that the judge stands still; unchanged ones do not."""
    evidence, gold = world()
    before = evidence_of([max(float(p) - 0.15, 0.0) for p in evidence.preferences])
    moved = quick(evidence, gold, earlier=Earlier("r-1", before))
    assert moved.drift is not None and moved.drift.anchors is not None and moved.drift.anchors.n == 400
    assert next(a for a in moved.ledger if a.name == "the judge stands still").holds is False
    same = quick(evidence, gold, earlier=Earlier("r-1", evidence))
    assert next(a for a in same.ledger if a.name == "the judge stands still").holds is True
    other = quick(evidence, gold, earlier=Earlier("r-1", replace(before, judge="judge@0")))
    assert other.drift is not None and other.drift.judge_changed
    assert all(a.name != "the judge stands still" for a in other.ledger)


def test_pairs_with_changed_answers_are_no_anchors() -> None:
    """A pair whose answer has another length now is not the same pair."""
    evidence, gold = world(n=60, labels=40)
    before = evidence_of([float(p) for p in evidence.preferences], lengths=[9] * 60)
    report = quick(evidence, gold, earlier=Earlier("r-1", before))
    assert report.drift is not None
    assert report.drift.anchors is None or report.drift.anchors.n < 60


def test_the_report_is_a_function_of_its_arguments() -> None:
    """Equal arguments give an equal report."""
    evidence, gold = world(n=120, labels=60)
    assert repr(quick(evidence, gold)) == repr(quick(evidence, gold))


def test_verdicts_must_belong_to_the_rows() -> None:
    """Evidence with another number of verdicts than pairs is refused."""
    evidence, _ = world(n=10, labels=0)
    with pytest.raises(InputError, match="9 sets of verdicts for 10 pairs"):
        replace(evidence, said=evidence.said[1:])


def test_certified_thresholds_say_how_many_pairs_go_to_people() -> None:
    """Each certificate comes with the number of pairs of the whole run that it abstains on."""
    evidence, gold = world(n=900, labels=500, skill=4.0)
    card = quick(evidence, gold).selective
    for made, count in zip(card.certificates, card.abstained, strict=True):
        confidence = np.maximum(evidence.preferences, 1 - evidence.preferences)
        assert count == (900 if made.threshold is None else int((confidence < made.threshold).sum()))
    assert any(made.threshold is not None for made in card.certificates)
    assert all(point.bound >= point.risk for point in card.curve)


def ignorant(kind: str, rng: np.random.Generator) -> tuple[Evidence, GoldSet]:
    """Judges that know nothing of the pair and still look right most of the time, on 300 pairs."""
    people = rng.random(300) < (0.7 if kind == "constant" else 0.75)
    if kind == "constant":
        preferences = [0.7] * 300
    else:
        preferences = [float(p) for p in np.clip(0.75 + rng.normal(0, 0.12, 300), 0.02, 0.98)]
    return evidence_of(preferences), gold_of({k: [OUTCOMES[0 if people[k] else 2]] for k in range(300)}, drawn="all")


@pytest.mark.parametrize("kind", ["constant", "independent"])
def test_a_base_rate_is_no_skill(kind: str) -> None:
    """A judge that says what is usual is right on 70% of decisive pairs and not believed (but by chance, with care)."""
    words = [quick(*ignorant(kind, np.random.default_rng(seed))).belief.word for seed in range(8)]
    assert words.count("DO NOT BELIEVE") >= 7 and "BELIEVE" not in words


def test_a_judge_that_hardly_ever_decides_is_not_simply_believed() -> None:
    """Fifteen right decisions beside 285 ties are no reason to believe a judge."""
    rng = np.random.default_rng(0)
    people = rng.random(300) < 0.5
    preferences: list[float | None] = [0.5] * 300
    for k in range(15):
        preferences[k] = 0.8 if people[k] else 0.2
    gold = gold_of({k: [OUTCOMES[0 if people[k] else 2]] for k in range(300)}, drawn="all")
    report = quick(evidence_of(preferences), gold)
    assert report.belief.word != "BELIEVE"
    assert any("decides only" in sentence for sentence in report.belief.sentences)


def test_a_judge_as_good_as_people_is_believed() -> None:
    """Two annotators a pair, a thousand pairs, a judge that errs no more than they do: BELIEVE, without a doubt."""
    rng = np.random.default_rng(1)
    truth = rng.normal(0, 1, 1000)
    sure = 1 / (1 + np.exp(-4 * truth))
    voices = [[OUTCOMES[0 if rng.random() < sure[k] else 2] for _ in range(2)] for k in range(1000)]
    report = quick(evidence_of([float(p) for p in sure]), gold_of(dict(enumerate(voices)), drawn="all"))
    assert report.belief.word == "BELIEVE", report.belief


def test_a_part_of_a_run_judged_again_gives_no_rate() -> None:
    """The labelled pairs alone are no random part of anything: agreement is measured, the rate is withheld."""
    evidence, gold = world(labels=150)
    ids = {item.pair_id for item in gold.items}
    kept = [k for k, row in enumerate(evidence.run.rows) if row.pair_id in ids]
    run = replace(evidence.run, rows=tuple(evidence.run.rows[k] for k in kept), part_of=400)
    report = quick(replace(evidence, run=run, said=tuple(evidence.said[k] for k in kept)), gold)
    assert isinstance(report.win_rate.corrected, Refused) and report.win_rate.corrected.kind == "part"
    assert isinstance(report.segments, Refused)
    assert report.agreement.compared > 100


def test_a_calibration_is_fitted_on_single_judgements() -> None:
    """Five noisy repeats give the calibration of one judgement, not that of their mean, which is surer."""
    rng = np.random.default_rng(2)
    truth = rng.normal(0, 1.5, 400)
    each = 1 / (1 + np.exp(-(truth[:, None] + rng.normal(0, 3.0, (400, 5)))))
    people = rng.random(400) < 1 / (1 + np.exp(-2 * truth))
    gold = gold_of({k: [OUTCOMES[0 if people[k] else 2]] for k in range(400)}, drawn="all")
    base = evidence_of([float(p) for p in each.mean(axis=1)])
    repeated = replace(
        base, said=tuple(replace(said, each=tuple(map(float, row))) for said, row in zip(base.said, each, strict=True))
    )
    once = quick(evidence_of([float(p) for p in each[:, 0]]), gold).confidence
    five = quick(repeated, gold).confidence
    assert isinstance(once.fitted, Calibration) and isinstance(five.fitted, Calibration)
    assert five.n == 2000
    assert five.fitted.apply(0.9) == pytest.approx(once.fitted.apply(0.9), abs=0.06)
    assert quick(base, gold).confidence.fitted.apply(0.9) > once.fitted.apply(0.9) + 0.05  # type: ignore[union-attr]


def test_the_noise_floor_is_between_repeats_of_the_same_kind() -> None:
    """Identical repeats have no noise, whatever the position bias; noisy ones flip as often as an unchanged judge."""
    evidence, gold = world()
    same = tuple(
        replace(said, each=(float(p), float(p))) for said, p in zip(evidence.said, evidence.preferences, strict=True)
    )
    still = replace(evidence, said=same)
    quiet = quick(still, gold, earlier=Earlier("r-1", still)).drift
    assert quiet is not None and quiet.anchors is not None and quiet.anchors.noise_flips is not None
    assert quiet.anchors.noise_flips.value == quiet.anchors.flips.value == 0.0
    rng = np.random.default_rng(0)

    def noisy() -> Evidence:
        draws = np.clip(evidence.preferences[:, None] + rng.normal(0, 0.2, (400, 2)), 0, 1)
        rows = zip(evidence.said, draws, strict=True)
        return replace(evidence, said=tuple(replace(said, each=tuple(map(float, row))) for said, row in rows))

    drift = quick(noisy(), gold, earlier=Earlier("r-1", noisy())).drift
    assert drift is not None and drift.anchors is not None and drift.anchors.excess is not None
    assert drift.anchors.excess.low < 0 < drift.anchors.excess.high


def test_split_annotators_count_as_their_majority_on_anchors() -> None:
    """Anchors voted two to one that all turn from wrong to right are a gain, not a mean of .667 that nothing equals."""
    people = [Outcome.WIN, Outcome.WIN, Outcome.LOSS]
    gold = gold_of(dict.fromkeys(range(60), people))
    drift = quick(evidence_of([0.9] * 60), gold, earlier=Earlier("r-1", evidence_of([0.1] * 60))).drift
    assert drift is not None and drift.anchors is not None
    assert (drift.anchors.gained, drift.anchors.lost) == (60, 0)
    assert drift.anchors.mcnemar is not None and drift.anchors.mcnemar < 0.001


def test_a_step_in_the_middle_of_a_run_alarms_after_it() -> None:
    """The chart follows the order of judging: a judge changed half way alarms in the second half, in groups of ten."""
    rng = np.random.default_rng(4)
    base = 0.5 + 0.1 * rng.normal(size=300)
    after = np.clip(base + 0.02 * rng.normal(size=300) + np.where(np.arange(300) >= 150, 0.08, 0.0), 0, 1)
    before, now = (evidence_of([float(p) for p in values]) for values in (np.clip(base, 0, 1), after))
    scattered = [f"p{k}" for k in range(300)]
    drift = quick(replace(now, sequence=tuple(scattered)), GoldSet(()), earlier=Earlier("r-1", before)).drift
    assert drift is not None and drift.cusum is not None and drift.cusum.alarm_at is not None
    assert drift.cusum.alarm_at > 15


def test_other_texts_of_the_same_length_are_no_anchors() -> None:
    """An answer that was replaced by one of equal length is seen by its digest."""
    evidence, gold = world(n=60, labels=40)
    told = replace(evidence, said=tuple(replace(said, texts="a") for said in evidence.said))
    other = replace(evidence, said=tuple(replace(said, texts="b") for said in evidence.said))
    drift = quick(told, gold, earlier=Earlier("r-1", other)).drift
    assert drift is not None and drift.anchors is None


def test_labels_without_names_are_refused_in_words_that_help() -> None:
    """Labels that name no candidate say so, not that they are about None."""
    evidence, gold = world()
    unnamed = GoldSet(tuple(replace(item, candidate=None, baseline=None) for item in gold.items))
    refused = quick(evidence, unnamed).win_rate.corrected
    assert isinstance(refused, Refused) and "None" not in refused.reason + refused.fix
    assert "do not say which candidate" in refused.reason


def test_the_gold_digest_is_that_of_the_file() -> None:
    """What the report and the calibration name can be recomputed from the gold set as it is read."""
    evidence, gold = world()
    report = quick(evidence, gold)
    assert isinstance(report.confidence.fitted, Calibration)
    assert report.identity["gold"] == report.confidence.fitted.gold == gold.digest


def test_a_judge_silent_on_bad_answers_does_not_move_the_length_controlled_rate() -> None:
    """Pairs without a verdict stay in at 1/2: where the judge falls silent on lost pairs, people's rate stays 1/2."""
    rng = np.random.default_rng(1)
    won = rng.random(1200) < 0.5
    soft = np.clip(0.5 + 0.3 * (2 * won - 1) + rng.normal(0, 0.15, 1200), 0, 1)
    silent = ~won & (rng.random(1200) < 0.5)
    lengths = [int(v) for v in rng.integers(0, 400, 1200)]
    preferences = [None if quiet else float(p) for quiet, p in zip(silent, soft, strict=True)]
    picked = rng.permutation(1200)[:500]
    gold = gold_of({int(k): [OUTCOMES[0 if won[k] else 2]] for k in picked})
    human = quick(evidence_of(preferences, lengths=lengths), gold).length.human
    assert human is not None and not isinstance(human, Refused)
    assert human.skipped == 0 and human.n == 1200
    assert human.controlled.low < 0.5 < human.controlled.high < 0.58
    assert human.raw.low < 0.5 < human.raw.high < 0.58


def test_a_fully_labelled_run_has_a_length_controlled_rate_of_its_labels_alone() -> None:
    """With a label on every pair no judge is needed, and the rate says so; it is that of the labels."""
    evidence, gold = world(n=300, labels=300)
    human = quick(evidence, gold).length.human
    assert human is not None and not isinstance(human, Refused)
    assert human.method.startswith("every pair is labelled, no judge needed; logistic")
    assert human.raw.value == pytest.approx(np.mean([item.value for item in gold.items]))


def test_too_few_labels_with_known_lengths_are_refused_by_their_number() -> None:
    """Where lengths are known on few labelled pairs only, the reason is that number and nothing about a fit."""
    evidence, gold = world()
    known = {item.pair_id for item in gold.items[:20]}
    rows = tuple(
        row if row.pair_id in known else replace(row, candidate_length=None, baseline_length=None)
        for row in evidence.run.rows
    )
    human = quick(replace(evidence, run=replace(evidence.run, rows=rows)), gold).length.human
    assert isinstance(human, Refused) and human.kind == "too_few"
    assert human.reason == "20 labels of pairs with known answer lengths lie on 20 prompts, below 30"


def styled(judge_likes: str, n: int = 400) -> tuple[Evidence, GoldSet]:
    """Longer answers hold more lists and headers; people mind neither, the judge likes ``length`` or ``lists``."""
    rng = np.random.default_rng(3)
    lists = rng.normal(0, 1, n)
    size = 0.85 * lists + 0.53 * rng.normal(0, 1, n)
    headers = 0.9 * size + 0.44 * rng.normal(0, 1, n)
    won = rng.random(n) < 0.5
    liked = {"length": np.tanh(size / size.std()), "lists": lists}[judge_likes]
    soft = np.clip(0.5 + 0.1 * liked + 0.2 * (won - 0.5) + rng.normal(0, 0.1, n), 0, 1)
    evidence = evidence_of([float(p) for p in soft], lengths=[int(20 + 20 * v) for v in size])
    styles = {
        name: {f"p{k}": float(v) for k, v in enumerate(x)} for name, x in (("lists", lists), ("headers", headers))
    }
    gold = gold_of({k: [OUTCOMES[0 if won[k] else 2]] for k in range(n)}, drawn="all")
    return replace(evidence, styles=styles), gold


def test_the_length_slope_is_that_of_length_alone_and_a_style_is_beside_length() -> None:
    """A judge that likes lists favours longer answers, and length says so; one that likes length likes no headers."""
    report = quick(*styled("lists"))
    slopes = {style.feature: style for style in report.bias.styles}
    assert list(slopes) == ["length", "lists", "headers"]
    evidence, gold = styled("lists")
    alone = quick(replace(evidence, styles={}), gold)
    assert slopes["length"] == alone.bias.styles[0]
    assert slopes["length"].bias.low > 0.05 and slopes["lists"].bias.low > 0
    longer = {style.feature: style for style in quick(*styled("length")).bias.styles}
    assert longer["length"].bias.low > 0.05
    assert longer["headers"].bias.low < 0 < longer["headers"].bias.high


def test_length_needs_no_style_and_a_style_no_varying_length() -> None:
    """A style measured on few pairs does not thin out the length slope; at equal lengths a style stands by itself."""
    evidence, gold = styled("lists")
    few = {name: dict(list(values.items())[:60]) for name, values in evidence.styles.items()}
    slopes = {style.feature: style for style in quick(replace(evidence, styles=few), gold).bias.styles}
    assert slopes["length"].bias.n == 400 and slopes["lists"].bias.n == 60
    rows = tuple(replace(row, candidate_length=100) for row in evidence.run.rows)
    level = quick(replace(evidence, run=replace(evidence.run, rows=rows)), gold)
    assert [style.feature for style in level.bias.styles] == ["lists", "headers"]


def test_families_share_the_adjustment_of_all_bias_tests() -> None:
    """A judge's own family is found however its maker is written, and its q is in the one Benjamini-Hochberg family."""
    evidence, gold = world(labels=300)
    names = [("gpt-4o", "claude-3"), ("openai/gpt-4o-mini", "gemini-1.5"), ("local/mine", "claude-3")]
    lifted = [min(p + 0.15 * (k % 3 < 2), 1.0) for k, p in enumerate(evidence.preferences.tolist())]
    base = evidence_of([float(p) for p in lifted], shift=0.2, judge="openai/gpt-4o@2024[t=0]")
    said = tuple(replace(one, candidate=names[k % 3][0], baseline=names[k % 3][1]) for k, one in enumerate(base.said))
    free = GoldSet(tuple(replace(item, candidate=None, baseline=None) for item in gold.items))
    card = quick(replace(base, said=said), free).bias
    rows = {row.family: row for row in card.families}
    assert set(rows) == {"openai", "anthropic", "google"}
    assert [name for name, row in rows.items() if row.own] == ["openai"]
    assert rows["openai"].excess.low > 0
    assert {name: card.q[f"family {name}"] for name in rows} == {name: row.q for name, row in rows.items()}
    assert {"length", "position"} <= set(card.q)
    local = quick(replace(base, said=said, judge="local/smollm2-135m@1"), free).bias
    assert not any(row.own for row in local.families)
