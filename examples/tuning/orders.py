"""The task of the example: an order in plain words becomes one JSON object with ``item`` and ``quantity``.

Whether an answer is right is decided by rule, so nobody's taste and no judge's error is in the figure. Items of the
held-out orders never occur in training.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

__all__ = ["Order", "near", "orders", "right_json", "well_formed"]

TRAINED = (
    "chairs lamps pencils blankets spoons towels bottles ropes buckets mirrors candles brushes hammers ladders baskets "
    "kettles clocks pillows stamps gloves"
).split()
HELD_OUT = "apples tables notebooks screws umbrellas bricks envelopes carpets batteries plates hats radios".split()
WAYS = (
    "we need {n} {item}",
    "Please send {n} {item} to the office.",
    "Could you deliver {n} {item} by Friday?",
    "{n} {item} for our guests, thank you",
    "I would like to order {n} {item}.",
)
PROMPT = 'Write the order as one JSON object, {{"item": ..., "quantity": ...}}, and nothing else.\nOrder: {order}'


@dataclass(frozen=True)
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


def near(order: Order) -> str:
    """A wrong answer that is nearly right: a key too many, a missing one, another amount, or a sentence around it."""
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
