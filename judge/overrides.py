"""Decisions in the register: found again, overridden by two people with a reason, and what may start a rollout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .decision import Decision, Word
from .errors import InputError

if TYPE_CHECKING:
    from .register import Entry, Register

__all__ = ["decision_entry", "decisions", "licence", "override", "overrides_of", "two_people"]


def decisions(register: Register) -> list[Entry]:
    """All recorded decisions, oldest first."""
    return register.entries("decision")


def decision_entry(register: Register, name: str = "latest") -> Entry:
    """One recorded decision by the beginning of its id, or the latest; raises ``InputError`` where there is none."""
    if name == "latest":
        found = decisions(register)
        if not found:
            raise InputError(f"{register.path}: no decision is recorded here; make one with: judge gate RUN")
        return found[-1]
    entry = register.find(name)
    if entry.kind != "decision":
        raise InputError(f"{entry.id} is a {entry.kind}, not a decision; list them with: judge gate show --list")
    return entry


def override(register: Register, name: str, *, reason: str, people: tuple[str, str], at: str) -> Entry:
    """Record that two people let a candidate through against a decision; the decision stays as it is.

    Raises ``InputError`` for a decision that ships anyway, an empty reason, or one person twice.
    """
    entry = decision_entry(register, name)
    by, second = two_people(people, reason)
    if entry.body["word"] == Word.SHIP:
        raise InputError(
            f"{entry.id} says SHIP: there is nothing to override; start with: judge rollout start {entry.id}"
        )
    body = {
        "decision": entry.id,
        "decision_digest": entry.digest,
        "run": entry.subject,
        "word": entry.body["word"],
        "reason": " ".join(reason.split()),
        "second": second,
    }
    return register.append("override", entry.id, body, at=at, by=by)


def overrides_of(entries: Sequence[Entry], decision: str) -> list[Entry]:
    """The overrides of a decision among these entries, the oldest first."""
    return [entry for entry in entries if entry.kind == "override" and entry.body.get("decision") == decision]


def two_people(people: tuple[str, str], reason: str) -> tuple[str, str]:
    """Both names, tidied; raises ``InputError`` for one person, nobody, or a reason that is none."""
    by, second = (" ".join(person.split()) for person in people)
    if not by or not second or by.casefold() == second.casefold():
        raise InputError(f"going against the evidence needs two people; --by {by!r} and --second {second!r} are not")
    if len(reason.split()) < 2:
        raise InputError(f"going against the evidence needs a --reason in words, not {reason!r}")
    return by, second


def licence(register: Register, name: str) -> tuple[Entry, Decision]:
    """What a rollout may start from: a decision that says SHIP, or an override; with the decision itself.

    Raises ``InputError`` for anything else, with the way there.
    """
    entry = register.find(name)
    if entry.kind == "override":
        return entry, Decision.from_dict(register.find(str(entry.body["decision"])).body)
    if entry.kind != "decision":
        raise InputError(f"{entry.id} is a {entry.kind}; a rollout starts from a decision: judge gate show --list")
    decision = Decision.from_dict(entry.body)
    if decision.word is not Word.SHIP:
        made = overrides_of(register.entries("override"), entry.id)
        if made:
            raise InputError(
                f"{entry.id} says {decision.word} and was overridden by {made[-1].id}; start from that: judge rollout "
                f"start {made[-1].id}"
            )
        raise InputError(
            f"{entry.id} says {decision.word}; only SHIP starts a rollout. See what stands in the way with `judge gate "
            f"show {entry.id}`, or override it with `judge gate override {entry.id}`"
        )
    return entry, decision
