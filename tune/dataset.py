"""A preference data set as it is built: sources put together, held against what it must not repeat, measured, written.

Beside ``pairs.jsonl`` stands ``pairs.card.json``: the report, what the rows came from, what they were held against. A
data set is also an entry (kind ``dataset``) of the home folder's register, so that a candidate can name it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from judge.errors import InputError
from judge.register import Entry, Register
from judge.render.words import plain
from judge.writing import write_whole

from .contamination import Clash, References, compared_text
from .preferences import BIAS, Preference, Source, write_preferences
from .quality import Quality, quality
from .splitting import judges_of
from .triangulation import Triangulated, triangulate

if TYPE_CHECKING:
    from .sources import Found

__all__ = ["Dataset", "Gathered", "assemble", "card_path", "read_card", "refuse_clashes", "save"]

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Gathered:
    """What one source gave: its rows, and how many of its entries gave none, by why."""

    name: str
    rows: tuple[Preference, ...]
    left: Mapping[str, int]

    @classmethod
    def of(cls, name: str, found: Iterable[Found], *, weight: float = 1.0) -> Gathered:
        """Collect a source; every row gets this ``weight`` times its own."""
        from .sources import kept

        rows, left = kept(found)
        weighted = rows if weight == 1.0 else [replace(row, weight=row.weight * weight) for row in rows]
        return cls(name, tuple(weighted), dict(sorted(left.items())))


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set and all that is known of it.

    ``against`` maps each reference to the number of its prompts; ``unchecked`` says that the data was held against
    nothing. ``clashes`` are empty in a set that may be trained on.
    """

    rows: tuple[Preference, ...]
    quality: Quality
    triangulated: Triangulated
    gathered: tuple[Gathered, ...]
    against: Mapping[str, int] = field(default_factory=dict)
    clashes: tuple[Clash, ...] = ()
    unchecked: bool = False

    def to_card(self) -> dict[str, Any]:
        """The card as plain values."""
        together = self.triangulated
        return {
            "digest": self.quality.digest,
            "rows": len(self.rows),
            "sources": [
                {"name": entry.name, "rows": len(entry.rows), "left": dict(entry.left)} for entry in self.gathered
            ],
            "bias": {name: list(BIAS[Source(name)]) for name in self.quality.sources},
            "triangulation": {
                "merged": together.merged,
                "undecided": list(together.undecided),
                "between": plain(together.between),
            },
            "against": dict(self.against),
            "checked": not self.unchecked,
            "labellers": _judges(self.rows),
            "quality": plain(self.quality),
            "extra_validation": self.quality.refresh is not None and self.quality.refresh.major,
        }


def assemble(
    gathered: Sequence[Gathered],
    references: References,
    *,
    use: Iterable[Mapping[str, Any]] | None = None,
    last: Sequence[Preference] | None = None,
    limit: float = 0.2,
    unchecked: bool = False,
    report: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Put sources together and measure the result; raises ``InputError`` where no row is left.

    Rows that repeat a reference are in ``clashes``, and still among the rows: whoever writes them decides (see
    ``refuse_clashes``).
    """
    together = triangulate([row for entry in gathered for row in entry.rows])
    if not together.rows:
        why = Counter(reason for entry in gathered for reason, count in entry.left.items() for _ in range(count))
        said = ", ".join(f"{count} {reason}" for reason, count in why.most_common(5)) or "the sources are empty"
        raise InputError(f"no preference is left: {said}")
    against = Counter(references.places)
    clashes = tuple(references.clashes(_compared(together.rows, report)))
    measured = quality(together.rows, use=use, last=last, people=together.labellers, limit=limit)
    return Dataset(together.rows, measured, together, tuple(gathered), dict(against), clashes, unchecked)


def _compared(rows: Sequence[Preference], report: Callable[[int, int], None] | None) -> Iterator[tuple[str, str]]:
    for count, row in enumerate(rows, 1):
        if report is not None and (count % 4_096 == 0 or count == len(rows)):
            report(count, len(rows))
        yield row.id, compared_text(row.prompt)


_ADVICE = "nothing was written; take them out with --drop-contaminated (they are counted and listed)"


def refuse_clashes(clashes: Sequence[Clash], total: int, *, advice: str = _ADVICE) -> None:
    """Raise ``InputError`` naming the rows that repeat what is measured on, if there are any."""
    if not clashes:
        return
    how = ", ".join(f"{count} {word}" for word, count in Counter(clash.how for clash in clashes).most_common())
    lines = [f"{len(clashes)} of {total} training rows repeat what the candidate will be measured on ({how}):"]
    lines += [
        f"  row {clash.row} is {clash.how} ({clash.similarity:.2f}) to {clash.reference} of {clash.where}"
        for clash in clashes[:_SHOWN]
    ]
    if len(clashes) > _SHOWN:
        lines.append(f"  and {len(clashes) - _SHOWN} more")
    raise InputError("\n".join([*lines, advice]))


def without(dataset: Dataset, **options: Any) -> Dataset:
    """The data set without its clashing rows, measured anew; the clashes stay on record."""
    hit = {clash.row for clash in dataset.clashes}
    rows = tuple(row for row in dataset.rows if row.id not in hit)
    if not rows:
        raise InputError("every row repeats what the candidate will be measured on; nothing is left to train on")
    measured = quality(rows, people=dataset.triangulated.labellers, **options)
    return replace(dataset, rows=rows, quality=measured)


def card_path(path: Path) -> Path:
    """Where the card of a data set stands: ``pairs.jsonl`` has ``pairs.card.json``."""
    return path.with_name(f"{path.stem}.card.json")


def read_card(path: Path) -> dict[str, Any] | None:
    """The card of a data set, ``None`` where there is none; raises ``InputError`` for a file that is no card."""
    card = card_path(path)
    if not card.exists():
        return None
    try:
        found = orjson.loads(card.read_bytes())
        found["digest"], found["quality"]["flags"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{card}: not the card of a data set ({error}); build the set again") from None
    return found  # type: ignore[no-any-return]


def save(dataset: Dataset, path: Path, home: Path, *, at: str, by: str = "") -> Entry:
    """Write the rows and the card, then enter the data set in the register; returns the entry."""
    card = dataset.to_card()
    card["clashes"] = plain(dataset.clashes)
    write_preferences(path, dataset.rows)
    write_whole(card_path(path), orjson.dumps({**card, "made": at}, option=orjson.OPT_INDENT_2))
    body = {
        "path": str(path.resolve()),
        "rows": card["rows"],
        "sources": dict(dataset.quality.sources),
        "runs": sorted({str(row.origin["run"]) for row in dataset.rows if "run" in row.origin}),
        "labellers": card["labellers"],
        "against": card["against"],
        "checked": card["checked"],
        "extra_validation": card["extra_validation"],
        "flags": list(dataset.quality.flags),
    }
    return Register(home).append("dataset", dataset.quality.digest, body, at=at, by=by)


def _judges(rows: Sequence[Preference]) -> list[str]:
    """Judges that labelled a row, alone or among others: none of them may evaluate what is trained on it."""
    return sorted({name for row in rows for name in judges_of(row)})
