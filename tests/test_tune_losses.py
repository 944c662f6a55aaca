"""The losses: the values worked out by hand, what soft labels do, and their symmetries."""

from __future__ import annotations

import math

import pytest

from judge.errors import InputError

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

from tune.losses import KINDS, Loss, Scores, desensitised, margin, pair_losses, rewards  # noqa: E402 - needs torch


def scores(lengths: tuple[float, float] = (1.0, 1.0)) -> Scores:
    """The pair of the worked values: log pi -40 and -45, log pi_ref -42 and -44."""
    return Scores(*(torch.tensor([x], dtype=torch.float64) for x in (-40.0, -45.0, -42.0, -44.0, *lengths)))


def value(loss: Loss, p: float = 1.0, lengths: tuple[float, float] = (1.0, 1.0)) -> float:
    return pair_losses(scores(lengths), torch.tensor([p], dtype=torch.float64), loss).item()


@pytest.mark.parametrize(
    ("loss", "lengths", "wanted"),
    [
        (Loss("sigmoid"), (50, 40), 0.554355),
        (Loss("sigmoid", flip=0.2), (50, 40), 0.614355),
        (Loss("robust", flip=0.2), (50, 40), 0.454355),
        (Loss("hinge"), (50, 40), 0.7),
        (Loss("sigmoid", length_penalty=0.01), (50, 40), 0.513015),
        (Loss("ipo"), (50, 40), 24.354225),
        (Loss("ipo"), (1, 1), 4.0),
        (Loss("simpo", beta=2.0, gamma=1.0), (50, 40), 0.883382),
    ],
)
def test_each_loss_has_its_worked_value(loss: Loss, lengths: tuple[float, float], wanted: float) -> None:
    """One pair worked out by hand for every kind of loss."""
    assert value(loss, lengths=lengths) == pytest.approx(wanted, abs=5e-7)


@pytest.mark.parametrize(("p", "wanted"), [(0.6, 0.4055), (0.75, 1.0986), (0.9, 2.1972)])
def test_a_soft_label_is_least_at_its_logit(p: float, wanted: float) -> None:
    """With label p the sigmoid loss is least where the margin is logit(p), so margins stay finite."""
    z = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    optimizer = torch.optim.LBFGS([z], max_iter=100, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = pair_losses(Scores(z, zero, zero, zero, one, one), p * one, Loss(beta=1.0)).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert z.item() == pytest.approx(wanted, abs=1e-4)
    assert z.item() == pytest.approx(math.log(p / (1 - p)), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_swapping_the_answers_and_the_label_changes_nothing(kind: str) -> None:
    """A pair named the other way round, with 1 - p, costs the same."""
    loss = Loss(kind, beta=0.3, flip=0.1, length_penalty=0.02, gamma=0.4 if kind == "simpo" else 0.0)
    forth = scores((50, 40))
    back = Scores(
        forth.rejected, forth.chosen, forth.ref_rejected, forth.ref_chosen, forth.rejected_tokens, forth.chosen_tokens
    )
    p = torch.tensor([0.8], dtype=torch.float64)
    assert pair_losses(forth, p, loss).item() == pytest.approx(pair_losses(back, 1 - p, loss).item(), abs=1e-12)
    assert margin(forth, loss).item() == pytest.approx(-margin(back, loss).item(), abs=1e-12)


def test_labels_are_each_pairs_own() -> None:
    """A batch of pairs with different p costs what the pairs cost alone."""
    one, many = scores((50, 40)), torch.tensor([0.5, 0.7, 1.0], dtype=torch.float64)
    batch = Scores(*(getattr(one, name).repeat(3) for name in Scores.__slots__))
    together = pair_losses(batch, many, Loss()).tolist()
    assert together == pytest.approx([value(Loss(), p, (50, 40)) for p in (0.5, 0.7, 1.0)], abs=1e-12)
    assert together[0] > together[1] > together[2]


def test_the_tail_beyond_the_shorter_answer_is_discounted() -> None:
    """LD-DPO counts tokens beyond the shorter answer's length by the given share; 1 is plain DPO, 0 drops them."""
    shared, beyond = torch.tensor([-10.0]), torch.tensor([-30.0])
    assert [desensitised(shared, beyond, tail).item() for tail in (1.0, 0.5, 0.0)] == [-40.0, -25.0, -10.0]


def test_the_length_penalty_takes_the_reward_of_length_out() -> None:
    """R-DPO: of two pairs with equal log ratios, the one whose chosen answer is longer is pushed less."""
    loss = Loss(length_penalty=0.01)
    assert value(loss, lengths=(50, 40)) < value(loss, lengths=(40, 40)) < value(loss, lengths=(40, 50))


def test_rewards_are_beta_times_the_log_ratio() -> None:
    """Chosen and rejected rewards of the worked pair, with and without a reference."""
    chosen, rejected = rewards(scores((50, 40)), Loss(beta=0.1))
    assert (chosen.item(), rejected.item()) == pytest.approx((0.2, -0.1))
    chosen, rejected = rewards(scores((50, 40)), Loss("simpo", beta=2.0))
    assert (chosen.item(), rejected.item()) == pytest.approx((-1.6, -2.25))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kind": "dpo"}, "choose one of sigmoid"),
        ({"beta": 0.0}, "positive"),
        ({"beta": math.inf}, "positive"),
        ({"flip": 0.5}, r"\[0, 0.5\)"),
        ({"tail": 1.2}, r"\[0, 1\]"),
        ({"gamma": 1.0}, "simpo"),
    ],
)
def test_a_constant_out_of_range_is_refused(wrong: dict[str, object], said: str) -> None:
    """Each constant has a range, and the message names it."""
    with pytest.raises(InputError, match=said):
        Loss(**wrong)
