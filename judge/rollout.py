"""A rollout as a literal table of moves and a list of events. Pure: the register keeps the events, a flag serves them.

    shadow -> 1% -> 5% -> 25% -> 100%, and from every stage one step back to the baseline

A rollback changes no model: the flag points at the baseline again, the unmerged adapter of the candidate stays where it
is, and a canary run of what is served then confirms it. Nothing is ever edited; what happened is the list of events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .errors import InputError, StoreError
from .policy import SHARES, STAGES

if TYPE_CHECKING:
    from .register import Entry

__all__ = [
    "ENDED",
    "ROLLED_BACK",
    "TRANSITIONS",
    "Rollout",
    "follow",
    "logged_before",
    "moved",
    "newest",
    "replay",
    "rollouts",
]

ROLLED_BACK, RESTORED = "rolled back", "restored"
ENDED = (ROLLED_BACK, RESTORED, "100%")
"""States after which a new rollout of the same flag may start."""

TRANSITIONS: Mapping[tuple[str, str], str] = {
    ("", "start"): "shadow",
    ("shadow", "advance"): "1%",
    ("1%", "advance"): "5%",
    ("5%", "advance"): "25%",
    ("25%", "advance"): "100%",
    ("shadow", "rollback"): ROLLED_BACK,
    ("1%", "rollback"): ROLLED_BACK,
    ("5%", "rollback"): ROLLED_BACK,
    ("25%", "rollback"): ROLLED_BACK,
    ("100%", "rollback"): ROLLED_BACK,
    (ROLLED_BACK, "confirm"): RESTORED,
}
"""Every move there is: (state, event) -> state. What is not here cannot happen."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One rollout as its events leave it.

    ``licence`` is the decision or override it started from, ``candidate`` and ``baseline`` what is served, ``adapter``
    where the candidate's unmerged weights lie (with their digest), ``plan`` the policy's rollout section. ``events``
    are the register's entries.
    """

    id: str
    flag: str
    state: str
    licence: str
    run: str
    candidate: str
    baseline: str
    plan: Mapping[str, Any]
    policy: str
    salt: str
    adapter: Mapping[str, str] = field(default_factory=dict)
    events: tuple[Entry, ...] = ()

    @property
    def active(self) -> bool:
        """Whether the candidate is served to somebody, or shadowed."""
        return self.state in STAGES

    @property
    def share(self) -> float:
        """The share of eligible traffic that the candidate answers now."""
        return SHARES.get(self.state, 0.0)

    @property
    def only(self) -> tuple[str, ...]:
        """The risks that may meet the candidate now; none named: all."""
        stages = {str(stage["name"]): stage for stage in self.plan["stages"]}
        return tuple(stages[self.state].get("only", ())) if self.state in stages else ()

    @property
    def since(self) -> str:
        """When the present state was entered (UTC, ISO 8601)."""
        return self.events[-1].at if self.events else ""


def moved(state: str, event: str) -> str:
    """The state after an event; raises ``InputError`` with what is possible where the table has no such move."""
    if (state, event) not in TRANSITIONS:
        possible = ", ".join(name for at, name in TRANSITIONS if at == state) or "nothing"
        raise InputError(f"a rollout that is {state or 'not started'!r} cannot {event}; possible: {possible}")
    return TRANSITIONS[state, event]


def replay(entries: Iterable[Entry]) -> Rollout:
    """One rollout from its entries in order; raises ``StoreError`` where they do not follow the table."""
    found: Rollout | None = None
    for entry in entries:
        body = entry.body
        try:
            state = moved("" if found is None else found.state, str(body["event"]))
        except InputError as error:
            raise StoreError(f"{entry.id}: {error}") from error
        if state != body["to"]:
            raise StoreError(f"{entry.id}: says it leads to {body['to']!r}, the table says {state!r}")
        if found is None:
            names = ("flag", "licence", "run", "candidate", "baseline", "plan", "policy", "salt", "adapter")
            found = Rollout(id=entry.subject, state=state, events=(entry,), **{name: body[name] for name in names})
        else:
            found = replace(found, state=state, events=(*found.events, entry))
    if found is None:
        raise StoreError("a rollout without an event")
    return found


def rollouts(entries: Iterable[Entry]) -> list[Rollout]:
    """Every rollout of the register, oldest first."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.subject, []).append(entry)
    return [replay(group) for group in groups.values()]


def newest(known: Iterable[Rollout], flag: str) -> Rollout | None:
    """The rollout that says what a flag serves: of those of this flag the one with the latest event."""
    mine = [one for one in known if one.flag == flag]
    return max(mine, key=lambda one: one.events[-1].seq) if mine else None


def follow(entries: Sequence[Entry], subject: str, body: Mapping[str, Any]) -> None:
    """Hold an event that is about to be written against everything that was, in case another process was faster.

    Raises ``InputError`` for a second rollout of a flag under way, a move that the table does not have from where the
    rollout stands now, and an older rollout whose flag a newer one moves.
    """
    known = rollouts(entry for entry in entries if entry.kind == "rollout")
    mine = next((one for one in known if one.id == subject), None)
    flag = body["flag"] if mine is None else mine.flag
    other = next((one for one in known if one.flag == flag and one.id != subject and one.state not in ENDED), None)
    if other is not None:
        raise InputError(
            f"{other.id} is at {other.state!r} on flag {flag!r}; end it first (judge rollout rollback {other.id})"
            + (", or take another --flag" if mine is None else "")
        )
    state = moved("" if mine is None else mine.state, str(body["event"]))
    if mine is not None and state != body["to"]:
        raise InputError(f"{subject} is at {mine.state!r} now: somebody moved it meanwhile; judge rollout status")


def logged_before(rollout: Rollout) -> frozenset[str]:
    """The metrics of the guards that some line said when the rollout took its stages so far, by the register."""
    found = set()
    for entry in rollout.events:
        proposal = entry.body.get("evidence", {}).get("proposal", {})
        units = proposal.get("candidates", 0) + proposal.get("baselines", 0)
        # Events of before `lacking` was kept: a stage was only taken then with every line saying every metric.
        found |= {str(guard["metric"]) for guard in proposal.get("guards", ()) if guard.get("lacking", 0) < units}
    return frozenset(found)
