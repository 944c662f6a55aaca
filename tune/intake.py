"""Traces in: a sample whose chances are known and kept in every row, redacted before it is written.

Each trace is drawn by a hash of its id and a seed, against the rate of the first rule that it meets: the same trace is
drawn or not whatever else is in the file, two files can be sampled apart, and what was drawn can be weighted back by
one over its chance (Horvitz-Thompson). What is met and drawn is counted by stratum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from judge.endings import finish_in
from judge.errors import InputError

if TYPE_CHECKING:
    from .redaction import Redactor

__all__ = ["Intake", "Rule", "chance_of", "parse_rule", "sample", "signal_of", "weight_of"]

_NEGATIVE = ("reask", "escalate")


@dataclass(frozen=True, slots=True)
class Rule:
    """A stratum: traces whose ``name`` is ``value`` are drawn with chance ``rate``."""

    name: str
    value: str
    rate: float

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


@dataclass(slots=True)
class Intake:
    """What was met and drawn, by stratum; ``weight`` is the sum of one over the chance of what was drawn.

    The weight estimates what was met, without bias: far apart, they say that ids are no hashes' worth of variety.
    """

    seed: int
    met: dict[str, int] = field(default_factory=dict)
    drawn: dict[str, int] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)

    @property
    def weight(self) -> float:
        """The Horvitz-Thompson estimate of how many traces were met."""
        return sum(count / self.rates[name] for name, count in self.drawn.items())

    def to_dict(self) -> dict[str, Any]:
        """For JSON and the register."""
        strata = {
            name: {"met": count, "drawn": self.drawn.get(name, 0), "rate": self.rates[name]}
            for name, count in self.met.items()
        }
        return {"seed": self.seed, "strata": strata, "left": dict(self.left), "weight": self.weight}


def parse_rule(text: str) -> Rule:
    """``FIELD=VALUE:RATE`` as a rule; raises ``InputError`` for anything else."""
    name, equals, rest = text.partition("=")
    value, colon, rate = rest.rpartition(":")
    try:
        number = float(rate)
    except ValueError:
        number = -1.0
    if not (name and equals and colon and 0.0 < number <= 1.0):
        raise InputError(f"--rate-for takes FIELD=VALUE:RATE with a rate above 0 and at most 1, not {text!r}")
    return Rule(name, value, number)


def sample(
    rows: Iterable[Mapping[str, Any]], rules: Sequence[Rule], redactor: Redactor, intake: Intake, *, rate: float
) -> Iterator[dict[str, Any]]:
    """The drawn traces as items of an eval set, with the answer given in use as the baseline.

    ``metadata.sampled`` keeps chance, stratum and seed. ``intake`` is filled while they go by. Foreign originals do not
    pass: they hold the texts before redaction. A trace without an id or an answer is counted and left.
    """
    for row in rows:
        answer = row.get("answer")
        if not row.get("id") or not isinstance(answer, Mapping) or not (row.get("prompt") or row.get("messages")):
            intake.left["no id, prompt or answer"] = intake.left.get("no id, prompt or answer", 0) + 1
            continue
        stratum, chance = chance_of(row, rules, rate)
        intake.rates[stratum] = chance
        intake.met[stratum] = intake.met.get(stratum, 0) + 1
        if not drawn(str(row["id"]), intake.seed, chance):
            continue
        intake.drawn[stratum] = intake.drawn.get(stratum, 0) + 1
        yield _item(row, answer, redactor, {"chance": chance, "stratum": stratum, "seed": intake.seed})


def chance_of(row: Mapping[str, Any], rules: Sequence[Rule], rate: float) -> tuple[str, float]:
    """Stratum and chance of a trace: those of the first rule that it meets, else ``others`` and ``rate``."""
    for rule in rules:
        metadata = row.get("metadata")
        value = row.get(rule.name)
        if value is None and isinstance(metadata, Mapping):
            value = metadata.get(rule.name)
        if rule.name == "signal":
            value = signal_of(row)
        if str(value) == rule.value:
            return str(rule), rule.rate
    return "others", rate


def drawn(name: str, seed: int, chance: float) -> bool:
    """Whether this id is drawn: the first 64 bits of a digest of seed and id, as a fraction, lie below the chance."""
    digest = hashlib.sha256(f"intake:{seed}:{name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < chance * 2**64


def weight_of(row: Mapping[str, Any]) -> float:
    """One over the chance that a row was drawn with (``sample``); 1 for a row that was not sampled."""
    metadata = row.get("metadata")
    sampled = metadata.get("sampled") if isinstance(metadata, Mapping) else None
    return 1.0 / float(sampled["chance"]) if isinstance(sampled, Mapping) and sampled.get("chance") else 1.0


def signal_of(row: Mapping[str, Any]) -> str:
    """What users made of an answer: ``bad`` (asked again, escalated, edited, a score of 0 or less), ``good``, ``none``.

    Scores are taken as they are: where a tool's scale has no zero for bad, give its own rule.
    """
    kinds = {action.get("kind") for action in row.get("actions") or () if isinstance(action, Mapping)}
    values = [entry.get("value") for entry in row.get("feedback") or () if isinstance(entry, Mapping)]
    numbers = [value for value in values if isinstance(value, int | float)]
    if kinds & {*_NEGATIVE, "edit"} or any(value <= 0 for value in numbers):
        return "bad"
    return "good" if "accept" in kinds or numbers else "none"


def _item(
    row: Mapping[str, Any], answer: Mapping[str, Any], redactor: Redactor, drawn_: Mapping[str, Any]
) -> dict[str, Any]:
    metadata = dict(row["metadata"]) if isinstance(row.get("metadata"), Mapping) else {}
    kept = {
        name: row[name]
        for name in ("prompt", "messages", "context", "reference", "category", "tags", "tools")
        if row.get(name)
    }
    texts = redactor.row({**kept, "baseline": dict(answer), "metadata": metadata})
    texts["baseline"] |= {name: answer[name] for name in ("model", "latency_ms", "tokens", "cost") if name in answer}
    finish = finish_in(answer, row)
    texts["baseline"] |= {"finish": finish} if finish else {}
    known = {"sampled": dict(drawn_), "signal": signal_of(row), "trace_id": row.get("trace_id"), "at": row.get("at")}
    texts["metadata"] |= {name: value for name, value in known.items() if value}
    return {"id": str(row["id"]), **texts}
