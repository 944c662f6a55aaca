"""How much of a win a feature explains: verdicts on data whose truth is planted, both ways, and on published runs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from calibration.explained import Word, explain
from calibration.lift import paired_lift
from calibration.wording import jackknife, log_odds

Array = npt.NDArray[np.float64]


def planted(
    seed: int, *, n: int = 400, grow: float, quality: float, slope: float, spread: float = 0.5
) -> tuple[Array, Array, Array]:
    """Lengths of both sides and verdicts: longer by ``exp(grow)``, better by ``quality`` logits at equal length, and a
    judge that likes length with ``slope`` logits a unit of log ratio.
    """
    rng = np.random.default_rng(seed)
    theirs = np.exp(rng.normal(6.5, 0.6, n))
    ours = theirs * np.exp(rng.normal(grow, spread, n))
    chance = 1 / (1 + np.exp(-(quality + slope * np.log(ours / theirs))))
    return (rng.random(n) < chance).astype(float), ours, theirs


def words(rounds: int, **truth: float) -> list[Word]:
    found = []
    for seed in range(rounds):
        y, ours, theirs = planted(seed, **truth)  # type: ignore[arg-type]
        result = explain("length", y, ours, theirs, log=True, rounds=200)
        assert result is not None
        found.append(result.word)
    return found


def test_a_win_bought_by_length_is_called_so() -> None:
    """All of the win is length: "longer, not better" in most runs, "longer and better" in hardly any."""
    found = words(60, grow=0.4, quality=0.0, slope=2.0)
    assert found.count(Word.NOT_BETTER) >= 42
    assert found.count(Word.BETTER) <= 4


def test_a_better_candidate_that_is_longer_is_not_accused() -> None:
    """Length buys nothing and the win is real: the accusation is a false alarm in at most 5% of the runs."""
    found = words(60, grow=0.4, quality=1.0, slope=0.0)
    assert found.count(Word.NOT_BETTER) <= 3
    assert found.count(Word.BETTER) >= 54


def test_a_better_candidate_before_a_judge_that_likes_length_is_not_accused() -> None:
    """Better at equal length, and the judge likes length: better, not bought."""
    found = words(60, grow=0.4, quality=0.9, slope=1.5)
    assert found.count(Word.NOT_BETTER) <= 3
    assert found.count(Word.BETTER) >= 50


def test_no_growth_and_no_win_are_never_accused() -> None:
    """Without more length, or without a win, there is nothing to explain, whatever the judge likes."""
    same = words(30, grow=0.0, quality=1.0, slope=2.0)
    assert set(same) == {Word.NOT_MORE}
    lost = words(30, grow=0.4, quality=-1.2, slope=1.0)
    assert Word.NOT_BETTER not in lost
    assert lost.count(Word.NO_WIN) >= 27


def test_the_mediated_share_is_the_planted_one() -> None:
    """(raw - controlled) / (raw - 1/2) comes out as planted, inside its interval; near-equal pairs agree with it."""
    y, ours, theirs = planted(7, n=6000, grow=0.4, quality=0.5, slope=1.0)
    result = explain("length", y, ours, theirs, log=True, rounds=300)
    assert result is not None
    assert result.control is not None
    assert result.mediated is not None
    assert result.near is not None
    rng = np.random.default_rng(0)
    gaps = rng.normal(0.4, 0.5, 200_000)
    raw = float(np.mean(1 / (1 + np.exp(-(0.5 + gaps)))))
    equal = 1 / (1 + np.exp(-0.5))
    true = (raw - equal) / (raw - 0.5)
    assert result.mediated.low <= true <= result.mediated.high
    assert result.near.low <= equal <= result.near.high
    assert result.near.n < 1500


def test_few_rows_and_a_feature_nobody_has_say_nothing() -> None:
    """Below thirty comparisons, or where no answer has any of it, there is a word for it and no number."""
    y, ours, theirs = planted(1, n=20, grow=0.4, quality=0.0, slope=1.0)
    short = explain("length", y, ours, theirs, log=True)
    none = explain("bold", [1.0] * 50, [0.0] * 50, [0.0] * 50)
    assert short is not None
    assert none is not None
    assert (short.word, none.word) == (Word.TOO_FEW, Word.TOO_FEW)
    assert short.control is None
    y, _ours, theirs = planted(1, n=60, grow=0.0, quality=0.5, slope=0.0)
    alike = explain("hedges", y, theirs / theirs + 2.0, theirs / theirs)
    assert alike is not None
    assert alike.word is Word.INSEPARABLE
    assert explain("length", [], [], []) is None


def test_published_runs_get_the_published_answer(gold: Callable[[str], Path]) -> None:
    """AlpacaEval 2, models against each other by half the difference of their preferences over one baseline.

    FuseChat-1B wins raw over claude-2 (published 29.9 against 17.2) and loses at equal length (25.3 against 28.2):
    longer, not better. FuseChat-8B wins both ways: better. NullModel wins 77% with short nonsense: length explains
    nothing there.
    """
    folder = gold("alpacaeval2")
    rows: dict[str, dict[int, dict[str, float]]] = {}
    with gzip.open(folder / "verdicts.jsonl.gz", "rt") as lines:
        for row in map(json.loads, lines):
            rows.setdefault(row["model"], {})[row["instruction_id"]] = row

    def word(model: str, other: str) -> Word:
        ours, theirs = rows[model], rows[other]
        both = sorted(ours.keys() & theirs.keys())
        result = explain(
            "length",
            [0.5 + (ours[item]["prob_a"] - theirs[item]["prob_a"]) / 2 for item in both],
            [ours[item]["len_a"] for item in both],
            [theirs[item]["len_a"] for item in both],
            log=True,
            rounds=300,
        )
        assert result is not None
        return result.word

    assert word("FuseChat-Llama-3.2-1B-Instruct", "claude-2") is Word.NOT_BETTER
    assert word("FuseChat-Llama-3.1-8B-Instruct", "claude-2") is Word.BETTER
    null = list(rows["NullModel"].values())
    found = explain(
        "length",
        [row["prob_a"] for row in null],
        [row["len_a"] for row in null],
        [row["len_b"] for row in null],
        log=True,
        rounds=200,
    )
    assert found is not None
    assert found.control is not None
    assert found.control.raw.low > 0.7
    assert found.word is Word.NOT_MORE


def test_a_paired_lift_is_newcombe_s() -> None:
    """Newcombe's method 10 on a table by hand: 9 and 3 of 50, three of them both."""
    attacked = [1.0] * 9 + [0.0] * 41
    plain = [1.0] * 3 + [0.0] * 47
    found = paired_lift(attacked, plain)  # phi = (3 * 41 - 0 * 6) / sqrt(9 * 41 * 3 * 47) = .5392
    assert found is not None
    assert found.lift.value == pytest.approx(0.12)
    assert (found.attacked.low, found.attacked.high) == pytest.approx((0.0977, 0.3080), abs=1e-3)
    assert (found.lift.low, found.lift.high) == pytest.approx((0.0297, 0.2318), abs=2e-4)


def test_a_paired_lift_covers_the_truth() -> None:
    """Over clustered rows with a planted lift of 5 points, the 95% interval covers it in at least 90% of 200 runs."""
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        base = np.repeat(rng.beta(0.5, 6.0, 60), 4)
        plain = (rng.random(240) < base).astype(float)
        attacked = np.maximum(plain, rng.random(240) < 0.05)
        truth = 0.05 * (1 - 0.5 / 6.5)
        found = paired_lift(attacked.tolist(), plain.tolist(), clusters=[str(n // 4) for n in range(240)])
        assert found is not None
        covered += found.lift.low <= truth <= found.lift.high
    assert covered >= 180


def test_phrases_are_named_by_both_sides_and_rare_ones_do_not_win() -> None:
    """The planted phrase has the highest score; one seen thrice by chance stays far below it."""
    ours = {"i hope this helps": 60, "the answer is": 40, "once in a while": 3}
    theirs = {"i hope this helps": 4, "the answer is": 42, "as you said": 30}
    found = log_odds(ours, theirs, strength=100)
    assert found[0].phrase == "i hope this helps"
    assert found[-1].phrase == "as you said"
    assert found[0].score > 3
    rare = next(odds for odds in found if odds.phrase == "once in a while")
    assert abs(rare.score) < found[0].score / 2
    assert log_odds({}, theirs) == ()


def test_the_jackknife_is_exact_for_a_mean() -> None:
    """For a mean with one row a group it is the ordinary standard error."""
    x = np.random.default_rng(0).normal(size=40)
    found = jackknife(lambda rows: float(x[list(rows)].mean()), 40, groups=20)
    assert found is not None
    grouped = x.reshape(2, 20).mean(axis=0)
    half = found.high - found.value
    assert half == pytest.approx(2.093024 * float(grouped.std(ddof=1)) / 20**0.5, rel=1e-3)
    assert jackknife(lambda _rows: 0.0, 30) is None


def test_the_only_phrase_there_is_tells_nobody_apart() -> None:
    """Answers that all consist of one phrase have no phrase to name; nothing is divided by zero."""
    assert log_odds({"yes it is": 20}, {"yes it is": 20}) == ()
