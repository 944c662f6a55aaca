"""Whether a data set may be trained on: what is on record of it, and that it repeats nothing it is measured on.

`judge tune pairs` leaves a card beside the rows and an entry (kind ``dataset``) in the register. Both are read before
a training: a set that was changed since is refused, one that replaces much of the last (``extra_validation``) needs
validation pairs from elsewhere, and its rows are held once more against what they were held against and what has been
frozen since: gold and frozen sets grow. What was never held against anything is trained on, but marked: an evaluation
of the candidate counts that as missing evidence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from judge.errors import InputError, StoreError
from judge.register import Register

from .contamination import References, compared_text
from .dataset import card_path, read_card, refuse_clashes
from .preferences import Preference, digest_of, read_preferences
from .references import add_reference, frozen_files, full_name, is_full_name
from .splitting import data_record, prompt_digest

if TYPE_CHECKING:
    from judge.store import Store

__all__ = ["Admission", "Known", "admit", "known_of"]


@dataclass(frozen=True, slots=True)
class Known:
    """What card and register say of a data set; all of it empty where `judge tune pairs` did not build it.

    ``entry`` is the id of its latest entry. A set that was built twice is held to both: ``extra_validation`` where one
    says so, ``against`` and ``judges`` of both.
    """

    entry: str = ""
    card: bool = False
    checked: bool = False
    extra_validation: bool = False
    judges: tuple[str, ...] = ()
    against: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Admission:
    """A data set that may be trained on: what the candidate keeps of it, the validation pairs, what must be said."""

    record: Mapping[str, Any]
    validation: tuple[Preference, ...] = ()
    warnings: tuple[str, ...] = ()


def known_of(path: Path, digest: str, home: Path) -> Known:
    """What is on record of the rows of this digest.

    Raises ``InputError`` where the card beside the file is that of other rows: they were changed after the check.
    """
    card = read_card(path)
    if card is not None and card["digest"] != digest:
        raise InputError(
            f"{path}: its rows are not those that {card_path(path).name} describes: they were changed after they were "
            "checked; build the set again with judge tune pairs"
        )
    entries = Register(home).entries("dataset", digest)
    said: list[Mapping[str, Any]] = [entry.body for entry in entries] + ([card] if card is not None else [])
    return Known(
        entries[-1].id if entries else "",
        card is not None,
        any(one.get("checked") is True for one in said),
        any(one.get("extra_validation") is True for one in said),
        tuple(sorted({str(name) for one in said for name in one.get("labellers") or ()})),
        tuple(sorted({str(name) for one in said for name in one.get("against") or ()})),
    )


def admit(
    path: Path,
    rows: Sequence[Preference],
    store: Store,
    *,
    against: Sequence[str] = (),
    validation: Path | None = None,
    seen: Collection[str] = (),
) -> Admission:
    """Decide whether ``rows`` of ``path`` may be trained on.

    ``against`` are further files or runs that must not be repeated, ``validation`` pairs that nothing is learnt from,
    ``seen`` the digests of prompts that a parent was trained on. Raises ``InputError`` for rows that repeat a gold,
    eval or frozen prompt, for a major refresh without validation pairs, and for validation pairs that are none.
    """
    found = known_of(path, digest_of(rows), store.home)
    references, warnings = _references(found, against, store)
    clashes = tuple(references.clashes((row.id, compared_text(row.prompt)) for row in rows))
    refuse_clashes(clashes, len(rows), advice="nothing was trained; take them out with judge tune pairs "
                                              "--drop-contaminated")  # fmt: skip
    if found.extra_validation and validation is None:
        raise InputError(
            f"{path}: its refresh is a major change (much of it was not in the last set), so its own held-out pairs "
            "say little; give pairs from elsewhere that were labelled by somebody else with --validation PAIRS.jsonl"
        )
    checked = found.checked or bool(against)
    if not checked:
        why = "its record says --unchecked" if found.entry or found.card else "judge tune pairs did not build it"
        warnings.append(
            f"{path} was held against no gold or eval set ({why}); an evaluation of this candidate is never SHIP. Name "
            "the sets with --against"
        )
    record = dict(data_record(rows))
    record["labellers"] = sorted({*record["labellers"], *(f"judge:{name}" for name in found.judges)})
    record |= {
        "dataset": found.entry,
        "checked": checked,
        "extra_validation": found.extra_validation,
        "against": sorted(set(references.places)),
        "validation": None,
    }
    if validation is None:
        return Admission(record, (), tuple(warnings))
    held = _validation(validation, rows, record["labellers"], seen)
    record["validation"] = {"path": str(validation), "digest": digest_of(held), "rows": len(held)}
    record["prompts"] = sorted({*record["prompts"], *(prompt_digest(row.prompt_text) for row in held)})
    return Admission(record, held, tuple(warnings))


def _references(found: Known, against: Sequence[str], store: Store) -> tuple[References, list[str]]:
    """The texts that must not be repeated, and what of the record can no longer be read."""
    references, gone = References(), []
    for what in (*against, *map(str, frozen_files(store.home))):
        add_reference(references, what, store)
    for what in sorted(set(found.against).difference(references.places, against)):
        try:
            if what != "latest" and full_name(what, store) in references.places:
                continue  # a name from the folder of then, and the very file or run is named now
            if not is_full_name(what, store):
                raise InputError(f"{what} may be another file or run by now")
            add_reference(references, what, store)
        except (InputError, StoreError, OSError):
            gone.append(
                f"{what} cannot be found again; the data was held against it when it was built, not again (name it "
                "with --against)"
            )
    return references, gone


def _validation(
    path: Path, rows: Sequence[Preference], labellers: Collection[str], seen: Collection[str]
) -> tuple[Preference, ...]:
    """Validation pairs, held against the training data: other prompts, another judge."""
    held = read_preferences(path)
    same = sorted(name for name in set(data_record(held)["labellers"]) & set(labellers) if name.startswith("judge:"))
    if same:
        raise InputError(
            f"{path}: {', '.join(same)} labelled the training data, too; validation pairs have to be labelled by "
            "somebody else"
        )
    trained = References()
    trained.add("the training data", ((row.id, compared_text(row.prompt)) for row in rows))
    clashes = {
        clash.row for clash in trained.clashes((str(n), compared_text(row.prompt)) for n, row in enumerate(held))
    }
    known = [row.id for n, row in enumerate(held) if str(n) in clashes or prompt_digest(row.prompt_text) in seen]
    if known:
        raise InputError(
            f"{path}: the prompts of {len(known)} of its {len(held)} pairs are trained on, exactly or nearly, here or "
            f"by the parent (the first: {', '.join(known[:5])}); validation pairs need prompts of their own"
        )
    return held
