"""Several sources on the same two answers: how often they agree, and what the data set then says.

Two answers to one prompt are one comparison, whoever made it. Where a person compared them the person decides; else
the mean of what the sources say, weighted, decides, and its certainty is the new ``p``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from calibration.estimates import Estimate, share

from .preferences import Preference, Source

__all__ = ["Agreement", "Triangulated", "triangulate"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two sources on the same pairs: the share with the same better answer, clustered by prompt; ids of the others."""

    sources: tuple[str, str]
    same: Estimate
    apart: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Triangulated:
    """The data set after sources were put together.

    ``merged`` counts rows that spoke of a comparison which another row speaks of, ``undecided`` those comparisons whose
    sources cancel out (left out). ``between`` holds sources against each other, ``labellers`` people against each other
    on the same comparison (``None``: no two people compared the same two).
    """

    rows: tuple[Preference, ...]
    merged: int
    undecided: tuple[str, ...]
    between: tuple[Agreement, ...]
    labellers: Estimate | None


Key = tuple[str, frozenset[str]]


def triangulate(rows: Sequence[Preference], *, least: float = 0.5) -> Triangulated:
    """Put rows about the same two answers together.

    A comparison whose merged ``p`` is not above ``least`` is undecided. A merged row keeps the fields of its strongest
    source (a person first, then the largest weight times certainty) and names all of them in ``metadata.sources``.
    """
    groups: dict[Key, list[Preference]] = {}
    for row in rows:
        groups.setdefault(_key(row), []).append(row)
    out: list[Preference] = []
    undecided: list[str] = []
    for group in groups.values():
        if len(group) == 1:
            out.append(group[0])
            continue
        found = _merged(group, least)
        if found is None:
            undecided.append(group[0].id)
        else:
            out.append(found)
    return Triangulated(_unique(out), len(rows) - len(groups), tuple(undecided), _between(groups), _people(groups))


def _key(row: Preference) -> Key:
    return row.prompt_text, frozenset((row.chosen_text, row.rejected_text))


def _merged(group: Sequence[Preference], least: float) -> Preference | None:
    people = [row for row in group if row.source is Source.HUMAN]
    voices = people or group
    reference = max(voices, key=lambda row: (row.weight * abs(row.p - 0.5), row.id))
    weight = sum(row.weight for row in voices)
    p = sum(row.weight * (row.p if row.chosen_text == reference.chosen_text else 1 - row.p) for row in voices) / weight
    if p < 0.5:
        p = 1 - p
        reference = next(row for row in voices if row.chosen_text != reference.chosen_text)
    if p <= least:
        return None
    sources = sorted({row.source.value for row in group})
    split = len({row.chosen_text for row in group}) > 1
    who = ", ".join(sorted({row.labeller for row in voices if row.labeller}))
    judges = sorted({row.labeller for row in voices if row.source is Source.JUDGE and row.labeller})
    metadata: Mapping[str, object] = {
        **reference.metadata,
        "sources": sources,
        **({"judges": judges} if judges else {}),
        **({"sources_disagree": True} if split else {}),
    }
    return replace(reference, p=p, close=reference.close or split, labeller=who, metadata=metadata)


def _between(groups: Mapping[Key, Sequence[Preference]]) -> tuple[Agreement, ...]:
    same: dict[tuple[str, str], list[bool]] = {}
    prompts: dict[tuple[str, str], list[str]] = {}
    apart: dict[tuple[str, str], list[str]] = {}
    for (prompt, _sides), group in groups.items():
        said: dict[str, dict[str, float]] = {}
        for row in group:
            votes = said.setdefault(row.source.value, {})
            votes[row.chosen_text] = votes.get(row.chosen_text, 0.0) + row.weight * row.p
        best = {source: max(votes, key=lambda text: votes[text]) for source, votes in said.items()}
        for pair in combinations(sorted(best), 2):
            agree = best[pair[0]] == best[pair[1]]
            same.setdefault(pair, []).append(agree)
            prompts.setdefault(pair, []).append(prompt)
            if not agree:
                apart.setdefault(pair, []).append(group[0].id)
    found = []
    for pair, hits in sorted(same.items()):
        estimate = share([float(hit) for hit in hits], clusters=prompts[pair])
        assert estimate is not None
        found.append(Agreement(pair, estimate, tuple(apart.get(pair, ()))))
    return tuple(found)


def _people(groups: Mapping[Key, Sequence[Preference]]) -> Estimate | None:
    """Share of pairs of people who agree, over comparisons that several made: rows of two people, or a row's votes."""
    hits: list[float] = []
    prompts: list[str] = []
    for (prompt, _sides), group in groups.items():
        votes: list[str] = []
        for row in group:
            if row.source is not Source.HUMAN:
                continue
            votes += _votes(row)
        for one, other in combinations(votes, 2):
            hits.append(float(one == other))
            prompts.append(prompt)
    return share(hits, clusters=prompts)


def _votes(row: Preference) -> list[str]:
    """The answers that people voted for, one entry a vote: those of ``metadata.votes``, else the row's own."""
    given = row.metadata.get("votes")
    if not isinstance(given, Mapping):
        return [row.chosen_text]
    decided = {name: int(count) for name, count in given.items() if name in ("win", "loss")}
    for_chosen = max(decided, key=lambda name: decided[name], default="")
    found = ["tie"] * int(given.get("tie", 0))
    for name, count in decided.items():
        found += [row.chosen_text if name == for_chosen else row.rejected_text] * count
    return found


def _unique(rows: Sequence[Preference]) -> tuple[Preference, ...]:
    """Rows with ids that differ: a second row of the same id gets a number."""
    seen: dict[str, int] = {}
    found = []
    for row in rows:
        number = seen[row.id] = seen.get(row.id, 0) + 1
        found.append(row if number == 1 else replace(row, id=f"{row.id}-{number}"))
    return tuple(found)
