"""calibration.ratings: Bradley-Terry and its tie models, with prompt-clustered intervals."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.ratings import Battles, components, rate
from rubrics.errors import InputError

WINS = [[0, 7, 9], [3, 0, 6], [2, 4, 0]]
TIES = {(0, 1): 4, (0, 2): 2, (1, 2): 5}


def battles(wins: list[list[int]], ties: dict[tuple[int, int], int] | None = None) -> Battles:
    """One battle per count, each on its own prompt."""
    rows = [(i, j, 1.0) for i, row in enumerate(wins) for j, n in enumerate(row) for _ in range(n)]
    rows += [(i, j, 0.5) for (i, j), n in (ties or {}).items() for _ in range(n)]
    items = [f"q{k}" for k in range(len(rows))]
    return Battles([str(i) for i, _, _ in rows], [str(j) for _, j, _ in rows], [y for _, _, y in rows], items)


def tournament(seed: int, *, candidates: int = 5, items: int = 60, ties: float = 0.2, shared: float = 0.0) -> Battles:
    """All pairs on every prompt; ``shared`` is the sd of a prompt effect that helps the stronger side of every pair
    there.
    """
    rng = np.random.default_rng(seed)
    strength = np.linspace(0.0, -1.5, candidates)
    first, second, outcome, item = [], [], [], []
    for q in range(items):
        effect = rng.normal(0.0, shared) if shared else 0.0
        for i in range(candidates):
            for j in range(i + 1, candidates):
                d = strength[i] - strength[j] + effect
                u = rng.random()
                y = 0.5 if rng.random() < ties else float(u < 1 / (1 + np.exp(-d)))
                first.append(f"m{i}")
                second.append(f"m{j}")
                outcome.append(y)
                item.append(f"q{q}")
    return Battles(first, second, outcome, item)


def strengths(**options: object) -> list[float]:
    """Log strengths of the three-candidate table against candidate 0."""
    result = rate(battles(WINS, TIES), baseline="0", **options)  # type: ignore[arg-type]
    assert result is not None
    return [result[name].strength.value for name in "012"]


def test_davidson_reproduces_the_reference_values() -> None:
    """Strengths, nu and the log likelihood of the tied example."""
    result = rate(battles(WINS, TIES), baseline="0", model="davidson")
    assert result is not None
    assert [result[name].strength.value for name in "012"] == pytest.approx([0.0, -0.98667, -1.49948], abs=6e-6)
    assert result.tie is not None
    assert result.tie.value == pytest.approx(0.80697, abs=6e-6)
    assert result.log_likelihood == pytest.approx(-41.9854, abs=5e-5)
    win, tie, loss = result.probabilities("0", "1")
    assert win / tie == pytest.approx(np.exp(0.98667 / 2) / 0.80697, rel=1e-4)
    assert win + tie + loss == pytest.approx(1.0)


def test_rao_kupper_reproduces_the_reference_values() -> None:
    """Strengths, theta and the log likelihood of the tied example."""
    result = rate(battles(WINS, TIES), baseline="0", model="rao_kupper")
    assert result is not None
    assert [result[name].strength.value for name in "012"] == pytest.approx([0.0, -0.78019, -1.18915], abs=6e-6)
    assert result.tie is not None
    assert result.tie.value == pytest.approx(1.86722, abs=6e-6)
    assert np.log(result.tie.value) == pytest.approx(0.62445, abs=6e-6)
    assert result.log_likelihood == pytest.approx(-41.8746, abs=5e-5)
    assert sum(result.probabilities("2", "0")) == pytest.approx(1.0)


def test_bradley_terry_reproduces_the_reference_values() -> None:
    """0>1 7:3, 1>2 6:4, 0>2 8:2 without ties, also under the tie models, which then say that they are the same."""
    decisive = battles([[0, 7, 8], [3, 0, 6], [2, 4, 0]])
    for model in ("bradley_terry", "davidson", "rao_kupper"):
        result = rate(decisive, baseline="0", model=model)  # type: ignore[arg-type]
        assert result is not None
        assert [result[name].strength.value for name in "012"] == pytest.approx([0.0, -0.889672, -1.332038], abs=1e-6)
        assert bool(result.notes) == (model != "bradley_terry")


def test_bradley_terry_agrees_with_choix() -> None:
    """Log strengths are choix's on a table with many candidates."""
    choix = pytest.importorskip("choix")
    rng = np.random.default_rng(0)
    wins = rng.integers(1, 9, (8, 8))
    np.fill_diagonal(wins, 0)
    data = [(i, j) for i in range(8) for j in range(8) for _ in range(int(wins[i, j]))]
    theirs = choix.ilsr_pairwise(8, data, max_iter=1000)
    result = rate(battles(wins.tolist()), baseline="0")
    assert result is not None
    ours = [result[str(k)].strength.value for k in range(8)]
    assert ours == pytest.approx(list(theirs - theirs[0]), abs=1e-5)


def test_bradley_terry_with_ties_agrees_with_evalica() -> None:
    """A tie as half a win and half a loss is evalica's Bradley-Terry with tie weight one half."""
    evalica = pytest.importorskip("evalica")
    table = battles(WINS, TIES)
    winners = [
        evalica.Winner.X if y == 1.0 else evalica.Winner.Y if y == 0.0 else evalica.Winner.Draw for y in table.outcomes
    ]
    fitted = evalica.bradley_terry(list(table.first), list(table.second), winners, tie_weight=0.5, tolerance=1e-12)
    theirs = fitted.scores
    expected = [float(np.log(theirs[name] / theirs["0"])) for name in "012"]
    assert strengths() == pytest.approx(expected, abs=1e-4)


def test_sandwich_agrees_with_statsmodels_clustered() -> None:
    """The prompt-clustered interval is that of a binomial GLM on the battle rows with cov_type cluster."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sm = pytest.importorskip("statsmodels.api")
    data = tournament(1)
    names = sorted(set(data.first) | set(data.second))
    design = np.zeros((len(data.first), len(names)))
    rows = np.arange(len(data.first))
    design[rows, [names.index(n) for n in data.first]] = 1.0
    design[rows, [names.index(n) for n in data.second]] = -1.0
    groups = np.unique(np.asarray(data.items), return_inverse=True)[1]
    theirs = sm.GLM(np.asarray(data.outcomes), design[:, 1:], family=sm.families.Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    result = rate(data, baseline="m0")
    assert result is not None
    quantile = 2.0009953780882688  # t with 59 degrees of freedom
    for k, name in enumerate(names[1:]):
        strength = result[name].strength
        assert strength.value == pytest.approx(theirs.params[k], abs=1e-6)
        error = (strength.high - strength.value) / quantile
        assert error == pytest.approx(theirs.bse[k] * np.sqrt(60 / 59), rel=1e-5)


@pytest.mark.parametrize("model", ["bradley_terry", "davidson", "rao_kupper"])
def test_bootstrap_and_sandwich_agree(model: str) -> None:
    """Two ways to the same interval, for strengths and for the tie parameter."""
    data = tournament(2, items=150)
    first = rate(data, baseline="m0", model=model)  # type: ignore[arg-type]
    second = rate(data, baseline="m0", model=model, interval="bootstrap")  # type: ignore[arg-type]
    assert first is not None
    assert second is not None
    for one in first.ratings[1:]:
        two = second[one.name].strength
        assert two.high - two.low == pytest.approx(one.strength.high - one.strength.low, rel=0.15)
    if first.tie is not None:
        assert second.tie is not None
        assert second.tie.high - second.tie.low == pytest.approx(first.tie.high - first.tie.low, rel=0.2)


def test_a_shared_prompt_effect_widens_the_interval_and_rows_would_not_know() -> None:
    """Where prompts favour the stronger side of every pair at once, clustering by prompt widens intervals over rows."""
    data = tournament(3, items=100, ties=0.0, shared=2.0)
    rows = Battles(data.first, data.second, data.outcomes, [f"r{k}" for k in range(len(data.first))])
    clustered, naive = rate(data, baseline="m0"), rate(rows, baseline="m0")
    assert clustered is not None
    assert naive is not None
    one, two = clustered["m4"].strength, naive["m4"].strength
    assert one.value == pytest.approx(two.value)
    assert one.high - one.low > 1.5 * (two.high - two.low)
    assert (clustered.items, naive.items) == (100, 1000)


def test_unconnected_battles_get_stated_ties() -> None:
    """A candidate that never lost or tied has no finite rating: ties with the baseline are added and said."""
    data = Battles(["a", "a", "b"], ["b", "c", "c"], [1, 1, 1], ["x", "y", "z"])
    result = rate(data, baseline="b", pseudo_ties=0.5)
    assert result is not None
    assert result.pseudo_ties == 0.5
    assert "3 groups" in result.notes[0]
    assert "0.5 ties with b" in result.notes[0]
    assert [r.name for r in result.ratings] == ["a", "b", "c"]
    assert all(np.isfinite(r.strength.value) for r in result.ratings)
    connected = rate(battles(WINS, TIES))
    assert connected is not None
    assert connected.pseudo_ties == 0.0
    assert connected.notes == ()


def test_components_are_the_strong_ones() -> None:
    """A cycle is one group; a chain is as many as it has members."""
    cycle, chain = np.zeros((3, 3)), np.zeros((3, 3))
    cycle[0, 1] = cycle[1, 2] = cycle[2, 0] = chain[0, 1] = chain[1, 2] = 1.0
    assert len(components(cycle)) == 1
    assert len(components(chain)) == 3


def test_ranks_follow_the_intervals() -> None:
    """Ranks are certain far apart, and open between equals."""
    wins = [[0, 50, 95], [50, 0, 95], [5, 5, 0]]
    result = rate(battles(wins), baseline="2")
    assert result is not None
    assert (result["2"].rank_low, result["2"].rank_high) == (3, 3)
    assert {(result[n].rank_low, result[n].rank_high) for n in "01"} == {(1, 2)}
    assert result["2"].elo[0] == 1000.0
    assert result["0"].battles == 200
    assert result["0"].elo[0] == pytest.approx(1000 + 400 / np.log(10) * result["0"].strength.value)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["bradley_terry", "davidson", "rao_kupper"]))
def test_sides_and_row_order_do_not_matter(seed: int, model: str) -> None:
    """Turning every battle around, or permuting them, gives the same ratings and intervals."""
    data = tournament(seed, candidates=4, items=25)
    order = np.random.default_rng(seed).permutation(len(data.first))
    turned = Battles(data.second, data.first, 1.0 - np.asarray(data.outcomes), data.items)
    shuffled = Battles(*([np.asarray(part)[order] for part in (data.first, data.second, data.outcomes, data.items)]))
    results = [rate(each, baseline="m0", model=model) for each in (data, turned, shuffled)]  # type: ignore[arg-type]
    for other in results[1:]:
        assert results[0] is not None
        assert other is not None
        for one in results[0].ratings:
            two = other[one.name].strength
            assert (two.value, two.low, two.high) == pytest.approx(
                (one.strength.value, one.strength.low, one.strength.high), abs=1e-7
            )


def test_degenerate_inputs() -> None:
    """No battles, one battle, and ties only are answered."""
    assert rate(Battles([], [], [], [])) is None
    one = rate(Battles(["a"], ["b"], [1.0], ["q"]))
    assert one is not None
    assert one.pseudo_ties > 0.0
    only = rate(Battles(["a", "b"], ["b", "a"], [0.5, 0.5], ["q", "r"]), model="davidson")
    assert only is not None
    assert only["b"].strength.value == pytest.approx(0.0)
    with pytest.raises(InputError, match="no rating for 'z'"):
        only["z"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Battles(["a"], ["b"], [0.7], ["q"]), "outcome of battle 0 is 0.7"),
        (Battles(["a"], ["b"], [float("nan")], ["q"]), "outcome of battle 0 is nan"),
        (Battles(["a"], ["a"], [1.0], ["q"]), "'a' against itself"),
        (Battles(["a"], ["b"], [1.0, 0.0], ["q"]), "one length"),
    ],
)
def test_bad_battles_are_named(data: Battles, message: str) -> None:
    """Unknown outcomes, NaN, a candidate against itself and unequal lengths are named."""
    with pytest.raises(InputError, match=message):
        rate(data)
    with pytest.raises(InputError, match="baseline 'z' fought no battle"):
        rate(battles(WINS), baseline="z")


def test_vicuna80_human_votes_give_the_published_order(gold: Callable[[str], Path]) -> None:
    """Ratings of five systems from the human majority, clustered by question, in the order of the published win
    rates.
    """
    folder = gold("vicuna80")
    value = {"A": 1, "B": -1, "tie": 0}
    first, second, outcome, item = [], [], [], []
    for line in (folder / "pairs.jsonl").read_text().splitlines():
        row = json.loads(line)
        first.append(row["meta"]["model_a"])
        second.append(row["meta"]["model_b"])
        outcome.append(0.5 + 0.5 * np.sign(np.mean([value[v] for v in row["annotators"]])))
        item.append(str(row["meta"]["question_id"]))
    published = json.loads((folder / "published.json").read_text())["winrate_human"]
    votes = Battles(first, second, outcome, item)
    for model in ("bradley_terry", "davidson", "rao_kupper"):
        result = rate(votes, baseline="vicuna-13b", model=model)  # type: ignore[arg-type]
        assert result is not None
        assert [r.name for r in result.ratings] == sorted(published, key=published.get, reverse=True)
        assert (result.n, result.items, result.pseudo_ties) == (800, 80, 0.0)
        assert result["gpt4"].rank_high == 1
    # every pair of systems was judged equally often: the mean modelled win rate is then the observed one
    fitted = rate(Battles(first, second, outcome, item))
    assert fitted is not None
    for name, share in published.items():
        others = [fitted.probabilities(name, other)[0] for other in published if other != name]
        assert np.mean(others) == pytest.approx(share, abs=1e-6)
