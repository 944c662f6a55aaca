"""Gold sets: what humans said, annotator by annotator, and how each pair came to be labelled.

Labels are never averaged on load. A tie, a rationale and a disagreement are information; "no majority" is a result.
Where labels came from (who, when, under which rubric, about which candidate, drawn how and with what probability)
travels with them, because only labels drawn at random from a run may correct that run's win rate.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from rubrics import Outcome
from rubrics.errors import InputError

from .gold_rows import GoldItem, GoldLabel, parse

__all__ = ["GoldItem", "GoldLabel", "GoldSet", "combine"]

_VALUES = {Outcome.WIN: 1.0, Outcome.TIE: 0.5, Outcome.LOSS: 0.0}


@dataclass(frozen=True)
class GoldSet:
    """Labelled pairs in file order, each pair once.

    Example::

        gold = GoldSet.read("gold/support.jsonl")
        gold.digest, len(gold), gold.no_majority, [w for w in gold.warnings]
    """

    items: tuple[GoldItem, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        twice = [pair for pair, count in Counter(item.pair_id for item in self.items).items() if count > 1]
        if twice:
            raise InputError(f"pair {twice[0]!r} stands twice in the gold set ({len(twice)} such); give each one row")

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def read(cls, path: str | Path, *, source: str | None = None) -> GoldSet:
        """Read one JSONL file: our label rows, or pair rows with ``response_a`` as the candidate; the two may not mix.

        Label rows (one a label): ``pair_id, annotator, outcome`` (win, tie, loss) and optionally ``prompt_id,
        rationale, closeness, at, shown_first, candidate, baseline, rubric, category, source, drawn, probability,
        stratum``; ``"revises": true`` replaces the annotator's earlier label, and an ``outcome`` of null with it takes
        the label back. Pair rows: ``id, prompt, response_a, response_b, label`` (A, B, tie or null), ``annotators`` (a
        list of letters, or a mapping from name to letter), ``meta``. ``source`` names rows that carry none (default:
        the file's stem). Raises ``InputError`` with file, line, field and fix.
        """
        file = Path(path)
        try:
            text = file.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise InputError(f"{file}: the gold set cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{file}: not UTF-8 at byte {error.start}; convert it first") from error
        return cls.from_lines(text.splitlines(), where=str(file), source=source if source is not None else file.stem)

    @classmethod
    def from_lines(cls, lines: Iterable[str], *, where: str = "gold", source: str = "") -> GoldSet:
        """Parse JSONL lines as ``read`` does; ``where`` stands in messages in place of the file."""
        items, notes = parse(lines, where=where, source=source)
        return cls(items, notes)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (64 hex digits) of all labels and their provenance, equal for any order of rows or annotators."""
        rows = sorted(
            json.dumps(asdict(replace(item, labels=tuple(sorted(item.labels, key=repr)))), sort_keys=True)
            for item in self.items
        )
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the collections in this set, sorted."""
        return tuple(sorted({item.source for item in self.items}))

    @property
    def annotators(self) -> tuple[str, ...]:
        """Names of all annotators, sorted."""
        return tuple(sorted({label.annotator for item in self.items for label in item.labels}))

    @property
    def no_majority(self) -> tuple[GoldItem, ...]:
        """Pairs on which no outcome has more than half of the votes; they stay in the set and are counted."""
        return tuple(item for item in self.items if item.majority is None)

    def disputed(self, *, above: float = 0.5) -> tuple[GoldItem, ...]:
        """Pairs for an expert: two annotators differ with a chance above ``above``; worst first, then by pair id."""
        picked = [item for item in self.items if item.disagreement > above]
        return tuple(sorted(picked, key=lambda item: (-item.disagreement, item.pair_id)))

    def where(self, keep: Callable[[GoldItem], bool]) -> GoldSet:
        """The pairs for which ``keep`` is true."""
        return GoldSet(tuple(item for item in self.items if keep(item)), self.notes)

    def known(self, pair_ids: Iterable[str]) -> tuple[GoldSet, tuple[str, ...]]:
        """The pairs that are in ``pair_ids``, and the sorted ids of the others: labels of pairs nobody judged."""
        ids = set(pair_ids)
        return self.where(lambda item: item.pair_id in ids), tuple(
            sorted(item.pair_id for item in self.items if item.pair_id not in ids)
        )

    def split(self, parts: int = 2, *, seed: int = 0) -> tuple[GoldSet, ...]:
        """Parts of nearly equal size, whole prompts together; a seeded hash, so the order of rows is nothing."""
        if parts < 1:
            raise InputError(f"a gold set splits into one part or more, not {parts}")
        place = fold_of([item.prompt_id for item in self.items], parts, seed=seed)
        return tuple(
            GoldSet(tuple(item for item, at in zip(self.items, place, strict=True) if at == part), self.notes)
            for part in range(parts)
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may mislead, one sentence each: sides, classes, duplicate raters, sources, missing provenance."""
        found = list(self.notes)
        outcomes = Counter(item.majority for item in self.items if item.majority is not None)
        if not self.items:
            return (*found, "the gold set is empty")
        if len(outcomes) == 1 and len(self.items) > 1:
            only, count = next(iter(outcomes.items()))
            found.append(_one_class(only, count))
        found += _twins(self)
        if len(self.sources) > 1:
            found.append(f"labels of {len(self.sources)} sources stand together ({', '.join(self.sources)})")
        unknown = sum(item.drawn == "unknown" for item in self.items)
        if unknown:
            found.append(
                f"{unknown} of {len(self.items)} pairs do not say how they were drawn: they measure the judge, "
                "but cannot correct a win rate"
            )
        if self.no_majority:
            found.append(f"{len(self.no_majority)} of {len(self.items)} pairs have no majority among their annotators")
        return tuple(found)


def combine(sets: Sequence[GoldSet], *, mix_sources: bool = False) -> GoldSet:
    """One set of several; raises ``InputError`` for several sources unless ``mix_sources`` says that this is meant.

    Two collections of labels for the same pairs can agree on 29 of 80: compare them before adding them. Equal pair ids
    are an error in any case.
    """
    names = sorted({name for gold in sets for name in gold.sources})
    if len(names) > 1 and not mix_sources:
        raise InputError(
            f"these gold sets come from {len(names)} sources ({', '.join(names)}), which may not agree: say that it is "
            "meant (--mix-sources, in Python mix_sources=True); several files of one draw are one source, join them "
            "with cat"
        )
    return GoldSet(
        tuple(item for gold in sets for item in gold.items),
        tuple(dict.fromkeys(note for gold in sets for note in gold.notes)),
    )


def fold_of(names: Sequence[str], parts: int, *, seed: int = 0) -> list[int]:
    """The part (0..parts-1) of each name: equal names together, parts equally full, independent of their order."""
    ranked = sorted(set(names), key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    place = {name: rank % parts for rank, name in enumerate(ranked)}
    return [place[name] for name in names]


def outcome_value(outcome: Outcome) -> float:
    """A win is 1, a tie 0.5, a loss 0."""
    return _VALUES[outcome]


def _one_class(only: Outcome, count: int) -> str:
    if only is Outcome.TIE:
        return f"every one of {count} majorities is a tie: no decisive label to measure a judge on"
    side = (
        "the candidate (first answer of the file)"
        if only is Outcome.WIN
        else "the baseline (second answer of the file)"
    )
    return (
        f"the right answer is always on one side: {side} wins all {count} majorities. "
        "A judge that always says so would look perfect; shuffle the sides"
    )


def _twins(gold: GoldSet, *, least: int = 20) -> list[str]:
    votes: dict[str, dict[str, Outcome]] = {}
    for item in gold.items:
        for label in item.labels:
            if label.named:
                votes.setdefault(label.annotator, {})[item.pair_id] = label.outcome
    found = []
    names = sorted(votes)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            both = votes[first].keys() & votes[second].keys()
            kinds = {votes[first][pair] for pair in both}
            if (
                len(both) >= least
                and len(kinds) > 1
                and all(votes[first][pair] == votes[second][pair] for pair in both)
            ):
                found.append(
                    f"annotators {first!r} and {second!r} agree on all {len(both)} shared pairs: one person twice?"
                )
    return found
