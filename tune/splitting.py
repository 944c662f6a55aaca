"""Which pairs are held out, and what is kept of a data set beside its candidate.

Pairs are parted by prompt, so that no prompt is on both sides: a prompt is held out where the digest of its text and
the seed falls into the wanted share. The same prompt falls on the same side whatever else is in the data.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from judge.errors import InputError

from .preferences import Preference, Source, digest_of

__all__ = ["data_record", "judges_of", "prompt_digest", "split"]


def prompt_digest(text: str) -> str:
    """sha256 (hex) of a prompt's words: case and white space do not count."""
    return hashlib.sha256(" ".join(text.lower().split()).encode("utf-8", "surrogatepass")).hexdigest()


def split(
    preferences: Sequence[Preference], share: float, *, seed: int = 0
) -> tuple[list[Preference], list[Preference]]:
    """Pairs to train on and pairs held out, about ``share`` of the prompts and at least one.

    Raises ``InputError`` where there are fewer than two prompts, or the share is not within (0, 1).
    """
    if not 0 < share < 1:
        raise InputError(f"--held-out {share:g}: give a share of the prompts within (0, 1), or a file")
    names = {row.id: prompt_digest(row.prompt_text) for row in preferences}
    ranked = sorted(set(names.values()), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    if len(ranked) < 2:
        raise InputError("all pairs have one prompt: none can be held out; add pairs with other prompts")
    out = set(ranked[: max(1, round(share * len(ranked)))])
    return (
        [row for row in preferences if names[row.id] not in out],
        [row for row in preferences if names[row.id] in out],
    )


def judges_of(row: Preference) -> tuple[str, ...]:
    """The judges whose preference is in a row: its labeller, or those of the rows that were put together in it."""
    together = row.metadata.get("judges")
    if isinstance(together, list | tuple):
        return tuple(str(name) for name in together)
    return (row.labeller,) if row.source is Source.JUDGE and row.labeller else ()


def data_record(preferences: Iterable[Preference]) -> Mapping[str, Any]:
    """What a candidate keeps of its data: digest, rows, sources, labellers, rubrics, and a digest of every prompt."""
    rows = list(preferences)
    labellers = {f"judge:{name}" for row in rows for name in judges_of(row)}
    for row in rows:
        if row.source is not Source.JUDGE or not judges_of(row):
            labellers.add(f"{row.source.value}:{row.labeller}" if row.labeller else row.source.value)
    return {
        "digest": digest_of(rows),
        "rows": len(rows),
        "sources": dict(sorted(Counter(row.source.value for row in rows).items())),
        "labellers": sorted(labellers),
        "rubrics": sorted({row.rubric for row in rows if row.rubric}),
        "prompts": sorted({prompt_digest(row.prompt_text) for row in rows}),
    }
