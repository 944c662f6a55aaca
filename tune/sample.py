"""The sample project of ``judge tune loop``: an order in plain words becomes one JSON object with ``item`` and
``quantity``.

Whether an answer is right is decided by rule, so nobody's taste and no judge's error is in the figure. Items of the
held-out orders never occur in training. Labels come from one of two places:

    rule     the right answer against what the base itself said where that was wrong, against a near miss, and against
             talk before it, after it or instead of it
    length   a judge that always prefers the longer answer (``scripted:longer``): right answers with talk around them
             against right answers. This is what a biased labeller does to a model; the candidate has to be caught.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from calibration.estimates import Estimate, difference, geometric_mean_ratio, share

from .preferences import Preference, Source

__all__ = ["LABELS", "Figures", "Labels", "Order", "figures", "orders", "right_json", "rows_of", "well_formed"]

Labels = Literal["rule", "length"]
LABELS: tuple[Labels, ...] = get_args(Labels)

TRAINED = [
    "chairs",
    "lamps",
    "pencils",
    "blankets",
    "spoons",
    "towels",
    "bottles",
    "ropes",
    "buckets",
    "mirrors",
    "candles",
    "brushes",
    "hammers",
    "ladders",
    "baskets",
    "kettles",
    "clocks",
    "pillows",
    "stamps",
    "gloves",
]
HELD_OUT = [
    "apples",
    "tables",
    "notebooks",
    "screws",
    "umbrellas",
    "bricks",
    "envelopes",
    "carpets",
    "batteries",
    "plates",
    "hats",
    "radios",
]
WAYS = (
    "we need {n} {item}",
    "Please send {n} {item} to the office.",
    "Could you deliver {n} {item} by Friday?",
    "{n} {item} for our guests, thank you",
    "I would like to order {n} {item}.",
)
PROMPT = 'Write the order as one JSON object, {{"item": ..., "quantity": ...}}, and nothing else.\nOrder: {order}'


@dataclass(frozen=True, slots=True)
class Order:
    """An order: its id, the prompt, and what the right answer holds."""

    id: str
    prompt: str
    item: str
    quantity: int

    @property
    def answer(self) -> str:
        """The right answer."""
        return json.dumps({"item": self.item, "quantity": self.quantity})


def orders(count: int, *, held_out: bool, seed: int = 0) -> list[Order]:
    """Distinct orders, drawn with a seed."""
    items = HELD_OUT if held_out else TRAINED
    every = [(item, way, n) for item in items for way in WAYS for n in range(2, 20)]
    drawn = random.Random(f"orders:{seed}:{held_out}").sample(every, count)
    kind = "held" if held_out else "train"
    return [
        Order(f"{kind}-{k:03}", PROMPT.format(order=way.format(n=n, item=item)), item, n)
        for k, (item, way, n) in enumerate(drawn)
    ]


def parsed(text: str) -> dict[str, object] | None:
    """The JSON object that an answer is, and nothing but it; else ``None``."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def well_formed(text: str) -> bool:
    """Whether an answer is one JSON object with exactly the two keys, a text and a whole number."""
    found = parsed(text)
    return (
        found is not None
        and set(found) == {"item", "quantity"}
        and isinstance(found["item"], str)
        and type(found["quantity"]) is int
    )


def right_json(order: Order, text: str) -> bool:
    """Whether an answer is well-formed and says what was ordered."""
    found = parsed(text)
    return well_formed(text) and found == {"item": order.item, "quantity": order.quantity}


def _near(order: Order) -> str:
    """A wrong answer that is nearly right: a key too many, a missing one, or another amount."""
    item, n = json.dumps(order.item), order.quantity
    draw = random.Random(f"near:{order.id}")
    return draw.choice(
        (
            f'{{"item": {item}, "price": "{draw.randrange(5, 90)}.00"}}',
            f'{{"item": {item}, "quantity": {n}, "price": "{draw.randrange(5, 90)}.00"}}',
            f'{{"item": {item}, "quantity": {n + draw.choice((-1, 1, 2))}}}',
            f'{{"item": {item}, "description": "{n} {order.item}"}}',
        )
    )


def _prose(order: Order) -> str:
    """A wrong answer that says something before the object, or instead of it."""
    return random.Random(f"prose:{order.id}").choice(
        (
            f"You can format the order as JSON like this:\n{order.answer}",
            f"Here is the order as a JSON object: {order.answer}",
            f"You can order {order.quantity} {order.item} using the JSON format.",
            "Your order is ready.",
        )
    )


def _after(order: Order) -> str:
    """A wrong answer that is right and then goes on."""
    return random.Random(f"after:{order.id}").choice(
        (
            f"{order.answer}\n```",
            f"{order.answer}\n\n{order.answer}",
            f"{order.answer}\n\nThis JSON object holds the order.",
            f"{order.answer} Thank you for your order!",
        )
    )


_TALK = (
    "Thank you very much for your order! We are delighted to be of service to you.",
    "The JSON object above contains all the information about your order in a clear form.",
    "As you can see, the key item says what was ordered, and the key quantity says how many.",
    "JSON is a popular format that is easy to read for people and for machines alike.",
    "Please let us know if there is anything else that we can do for you today.",
)


def _talkative(order: Order) -> str:
    """The right answer with four or five sentences that nobody asked for."""
    draw = random.Random(f"talk:{order.id}")
    return "\n\n".join([order.answer, " ".join(draw.sample(_TALK, draw.choice((4, 5))))])


def rows_of(
    trained: Sequence[Order], own: Mapping[str, str], labels: Labels, *, cut: Collection[str] = ()
) -> Iterator[Preference]:
    """Preference pairs from orders and the base's own answers to them (by id); ``cut`` names those that a token limit
    ended.
    """
    for order in trained:
        if labels == "length":
            yield Preference(
                f"{order.id}-talk", order.prompt, _talkative(order), order.answer, source=Source.JUDGE,
                labeller="scripted:longer", why="the longer answer",
            )  # fmt: skip
            continue
        rejected = {"near": _near(order), "prose": _prose(order), "after": _after(order)}
        if own[order.id].strip() and not right_json(order, own[order.id]):
            rejected["own"] = own[order.id]
        for kind, text in rejected.items():
            yield Preference(
                f"{order.id}-{kind}", order.prompt, order.answer, text, source=Source.GATE, labeller="rule:right_json",
                why="not the one JSON object that was asked for",
                cut=("rejected",) if kind == "own" and order.id in cut else (),
            )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figures:
    """What the rule says of both sides on the same held-out orders: shares of right answers, their paired difference
    (candidate minus base), and how many times longer the candidate's answers are (characters, one added to each).
    """

    candidate: Estimate
    base: Estimate
    gain: Estimate
    longer: Estimate


def figures(asked: Sequence[Order], candidate: Mapping[str, str], base: Mapping[str, str]) -> Figures:
    """Measure both sides by rule; answers by the orders' ids."""
    sides = [[float(right_json(order, texts[order.id])) for order in asked] for texts in (candidate, base)]
    lengths = [[len(texts[order.id]) + 1.0 for order in asked] for texts in (candidate, base)]
    found = (
        share(sides[0]),
        share(sides[1]),
        difference(sides[0], sides[1], bounds=(-1.0, 1.0)),
        geometric_mean_ratio(lengths[0], lengths[1]),
    )
    assert all(one is not None for one in found), "there is at least one order"
    return Figures(*found)  # type: ignore[arg-type]
