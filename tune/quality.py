"""What a preference data set is like before anything is trained on it: a report of measured facts, and flags.

Five questions. Does it cover what the system meets in use? Is a rejected answer one that the model could have given, or
one that gives itself away? How much of "better" is only "longer"? Do people agree? How much is new since the last set?
A question that the data cannot answer is answered with why (``missing``), not with a zero.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from calibration.estimates import Estimate, geometric_mean_ratio, share

from .contamination import compared_text
from .intake import weight_of
from .preferences import Preference, digest_of, identity_of

__all__ = ["FACETS", "Coverage", "Easy", "Quality", "Refresh", "Segment", "facets_of", "quality"]

_LEAST_SHARE, _HALF = 0.02, 0.5
"""A segment of at least this share in use is under-covered where its share in training is below half of that."""
_BUCKETS = ((1_000, "under 1k"), (4_000, "1k-4k"), (16_000, "4k-16k"), (64_000, "16k-64k"))
"""Context length in characters."""
FACETS = ("intent", "difficulty", "risk", "tools", "context_length")
"""What the data set is held against the real mix by."""
_INTENT = ("intent", "category", "segment")

_WORDS = re.compile(r"\w+")
_REFUSAL = re.compile(
    r"^\W*(?:i'?m sorry|sorry|i (?:can(?:no|')t|am unable|won't)|as an ai|unfortunately,? i)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Segment:
    """One value of a facet: its share in training, and in use (``None`` without a reference)."""

    name: str
    training: Estimate | None
    use: Estimate | None
    under: bool


@dataclass(frozen=True, slots=True)
class Coverage:
    """One facet; ``distance`` is the total variation between training and use, 0 (same mix) to 1 (disjoint)."""

    facet: str
    segments: tuple[Segment, ...]
    distance: float | None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Easy:
    """Pairs that teach little, by what gives the rejected answer away: ids, and the share of all pairs."""

    why: str
    ids: tuple[str, ...]
    share: Estimate


@dataclass(frozen=True, slots=True)
class Refresh:
    """The set against the last one: rows that are new (or say something else now), gone, and the same.

    ``share`` is new over all; ``major`` says that it passes ``limit``: the candidate is then not a small step from the
    last, and what was measured of that says little of it.
    """

    last: str
    new: int
    gone: int
    same: int
    share: float
    limit: float
    major: bool


@dataclass(frozen=True, slots=True)
class Quality:
    """The report. ``flags`` are its findings in one sentence each; ``to_dict`` is the card that is kept."""

    digest: str
    rows: int
    prompts: int
    sources: Mapping[str, int]
    coverage: tuple[Coverage, ...]
    easy: tuple[Easy, ...]
    length: Estimate | None
    longer: Estimate | None
    styles: Mapping[str, Estimate] = field(default_factory=dict)
    close: Estimate | None = None
    people: Estimate | None = None
    refresh: Refresh | None = None
    flags: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return asdict(self)


def quality(
    rows: Sequence[Preference],
    *,
    use: Iterable[Mapping[str, Any]] | None = None,
    last: Sequence[Preference] | None = None,
    people: Estimate | None = None,
    limit: float = 0.2,
) -> Quality:
    """Measure a data set.

    ``use`` are rows of what the system meets (traces), ``last`` the set that the running candidate was trained on,
    ``people`` how often two people agree (``triangulate``), ``limit`` the share of new rows that makes a refresh major.
    """
    prompts = [row.prompt_text for row in rows]
    covered = _coverage(rows, None if use is None else list(use))
    easy = _easy(rows, prompts)
    lengths = [(len(row.chosen_text), len(row.rejected_text)) for row in rows]
    # One character more on both sides: an empty rejected answer has no ratio.
    ratio = geometric_mean_ratio([a + 1 for a, _ in lengths], [b + 1 for _, b in lengths], clusters=prompts)
    uneven = [(float(a > b), prompt) for (a, b), prompt in zip(lengths, prompts, strict=True) if a != b]
    longer = share([hit for hit, _ in uneven], clusters=[prompt for _, prompt in uneven])
    found = Quality(
        digest=digest_of(rows),
        rows=len(rows),
        prompts=len(set(prompts)),
        sources=dict(Counter(row.source.value for row in rows)),
        coverage=covered,
        easy=easy,
        length=ratio,
        longer=longer,
        styles=_styles(rows, prompts),
        close=share([float(row.close) for row in rows], clusters=prompts),
        people=people,
        refresh=None if last is None else _refresh(rows, last, limit),
    )
    return Quality(**{**_fields(found), "flags": tuple(_flags(found))})


def facets_of(row: Mapping[str, Any], text: str) -> dict[str, str | None]:
    """The value of each facet of a row (ours, of any kind); ``None`` where it does not say.

    Intent is ``metadata.intent``, ``category`` or ``segment``; difficulty and risk stand in the metadata; tools are the
    names of those offered (or called), ``none`` where the row holds an empty list; length counts characters of prompt
    and context.
    """
    metadata = row.get("metadata") if isinstance(row.get("metadata"), Mapping) else {}
    assert isinstance(metadata, Mapping)
    both = {**{name: row[name] for name in (*_INTENT, "difficulty", "risk") if name in row}, **metadata}
    intent = next((str(both[name]) for name in _INTENT if both.get(name)), None)
    tools = row.get("tools")
    answer = row.get("answer")
    if tools is None and isinstance(answer, Mapping):
        tools = answer.get("tool_calls")
    named = None
    if isinstance(tools, list | tuple):
        named = ", ".join(sorted({_tool_name(tool) for tool in tools})) or "none"
    context = row.get("context") or ()
    extra = (
        both.get("context_chars", 0)
        if not context
        else sum(map(len, [context] if isinstance(context, str) else context))
    )
    size = len(text) + (int(extra) if isinstance(extra, int | float) else 0)
    bucket = next((name for top, name in _BUCKETS if size < top), "64k and more")
    return {
        "intent": intent, "tools": named, "context_length": bucket,
        "difficulty": str(both["difficulty"]) if both.get("difficulty") is not None else None,
        "risk": str(both["risk"]) if both.get("risk") is not None else None,
    }  # fmt: skip


def _coverage(rows: Sequence[Preference], use: list[Mapping[str, Any]] | None) -> tuple[Coverage, ...]:
    training = [facets_of(row.to_row() | {"tools": list(row.tools) or None}, compared_text(row.prompt)) for row in rows]
    real = None if use is None else [(facets_of(row, _asked_text(row)), weight_of(row)) for row in use]
    found = []
    for facet in FACETS:
        mine = [entry[facet] for entry in training if entry[facet] is not None]
        theirs = None if real is None else [(entry[facet], w) for entry, w in real if entry[facet] is not None]
        if not mine:
            found.append(Coverage(facet, (), None, "no training row says it"))
        elif real is None:
            found.append(Coverage(facet, _segments(mine, None), None, "no traces to hold it against (--mix)"))
        elif not theirs:
            found.append(Coverage(facet, _segments(mine, None), None, "no trace says it"))
        else:
            segments = _segments(mine, theirs)
            distance = (
                sum(abs((s.training.value if s.training else 0) - (s.use.value if s.use else 0)) for s in segments) / 2
            )
            found.append(Coverage(facet, segments, distance))
    return tuple(found)


def _segments(mine: Sequence[Any], theirs: Sequence[tuple[Any, float]] | None) -> tuple[Segment, ...]:
    """Shares by value; those of use weighted back where traces were drawn with known chances."""
    ours, real = Counter(mine), Counter(value for value, _weight in theirs or ())
    weights = [weight for _value, weight in theirs or ()]
    names = sorted({*ours, *real}, key=lambda name: (-real[name], -ours[name], name))
    found = []
    for name in names:
        training = share([1.0] * ours[name] + [0.0] * (len(mine) - ours[name]))
        use = share([float(value == name) for value, _weight in theirs], weights=weights) if theirs else None
        # Shown, not guessed: the whole interval in training lies below half of the share in use.
        under = (
            use is not None and training is not None and use.value >= _LEAST_SHARE and training.high < _HALF * use.value
        ) or (use is not None and use.value >= _LEAST_SHARE and ours[name] == 0)
        found.append(Segment(str(name), training, use, under))
    return tuple(found)


def _easy(rows: Sequence[Preference], prompts: Sequence[str]) -> tuple[Easy, ...]:
    found = []
    for why, test in _TESTS.items():
        hits = [test(row) for row in rows]
        if any(hits):
            estimate = share([float(hit) for hit in hits], clusters=prompts)
            assert estimate is not None
            found.append(Easy(why, tuple(row.id for row, hit in zip(rows, hits, strict=True) if hit), estimate))
    return tuple(found)


def _empty(row: Preference) -> bool:
    return not row.rejected_text.strip()


def _lengths_apart(row: Preference) -> bool:
    a, b = len(row.chosen_text) + 1, len(row.rejected_text) + 1
    return not _empty(row) and max(a, b) > 4 * min(a, b) and max(a, b) > 80


def _repeats(row: Preference) -> bool:
    """Text that packs to less than a sixth repeats itself; prose packs to a half or a third."""
    data = row.rejected_text.encode("utf-8", "replace")
    return len(data) > 200 and len(zlib.compress(data, 6)) < len(data) / 6 and not _packs(row.chosen_text)


def _packs(text: str) -> bool:
    data = text.encode("utf-8", "replace")
    return len(data) > 200 and len(zlib.compress(data, 6)) < len(data) / 6


def _off_topic(row: Preference) -> bool:
    """The chosen answer takes up words of the prompt, the rejected one none."""
    asked = {word for word in _WORDS.findall(compared_text(row.prompt).lower()) if len(word) > 3}
    chosen, rejected = (set(_WORDS.findall(text.lower())) for text in (row.chosen_text, row.rejected_text))
    return len(asked & chosen) >= 3 and len(rejected) >= 5 and not asked & rejected


def _other_script(row: Preference) -> bool:
    """One answer is mostly ASCII letters, the other mostly other letters."""
    chosen, rejected = _ascii(row.chosen_text), _ascii(row.rejected_text)
    return chosen is not None and rejected is not None and abs(chosen - rejected) > 0.7


def _ascii(text: str) -> float | None:
    letters = [letter for letter in text[:2000] if letter.isalpha()]
    return sum(letter.isascii() for letter in letters) / len(letters) if len(letters) >= 20 else None


def _refuses(row: Preference) -> bool:
    return bool(_REFUSAL.match(row.rejected_text)) and not _REFUSAL.match(row.chosen_text)


_TESTS: Mapping[str, Callable[[Preference], bool]] = {
    "rejected is empty": _empty,
    "one side is more than four times as long": _lengths_apart,
    "rejected repeats itself": _repeats,
    "rejected shares no word with the prompt": _off_topic,
    "rejected is in another script": _other_script,
    "rejected refuses, chosen does not": _refuses,
}


def _styles(rows: Sequence[Preference], prompts: Sequence[str]) -> dict[str, Estimate]:
    """Share of pairs whose chosen answer has more of a marker, among those where the two differ in it."""
    from judge.evidence import styles

    found: dict[str, Estimate] = {}
    texts = ((str(place), (row.chosen_text, row.rejected_text)) for place, row in enumerate(rows))
    for name, differences in styles(texts).items():
        uneven = [(float(value > 0), prompts[int(place)]) for place, value in differences.items() if value != 0]
        estimate = share([hit for hit, _ in uneven], clusters=[prompt for _, prompt in uneven])
        if estimate is not None:
            found[name] = estimate
    return found


def _refresh(rows: Sequence[Preference], last: Sequence[Preference], limit: float) -> Refresh:
    now, before = ({_said(row) for row in group} for group in (rows, last))
    new = len(now - before)
    part = new / len(now) if now else 0.0
    return Refresh(digest_of(last), new, len(before - now), len(now & before), part, limit, part > limit)


def _said(row: Preference) -> str:
    return identity_of(row.prompt, row.chosen, row.rejected)


def _flags(found: Quality) -> Iterable[str]:
    for entry in found.coverage:
        under = [segment.name for segment in entry.segments if segment.under]
        if under:
            yield f"{entry.facet}: too few rows of {', '.join(under[:6])}{' and others' if len(under) > 6 else ''}"
    for easy in found.easy:
        if easy.share.value >= 0.05:
            yield f"{easy.why}: {easy.share.value:.0%} of pairs; a model learns that, and little else"
    if found.longer is not None and (found.longer.low > 0.6 or found.longer.high < 0.4):
        word = "longer" if found.longer.low > 0.6 else "shorter"
        side = found.longer.value if word == "longer" else 1 - found.longer.value
        yield f"chosen is the {word} one in {side:.0%} of pairs: length alone tells them apart"
    for name, estimate in found.styles.items():
        if estimate.low > 0.65 or estimate.high < 0.35:
            yield f"{name}: chosen has more in {estimate.value:.0%} of the pairs that differ in it"
    if found.people is not None and found.people.high < 0.7:
        yield f"two people agree on {found.people.value:.0%} of pairs: what is better is not settled"
    if found.refresh is not None and found.refresh.major:
        yield (
            f"{found.refresh.share:.0%} of rows are new (limit {found.refresh.limit:.0%}): a major change, to be "
            "validated like a first candidate"
        )


def _tool_name(tool: Any) -> str:
    if isinstance(tool, Mapping):
        inner = tool.get("function")
        return str((inner if isinstance(inner, Mapping) else tool).get("name", "unnamed"))
    return str(tool)


def _asked_text(row: Mapping[str, Any]) -> str:
    messages = row.get("messages")
    return compared_text(tuple(messages) if isinstance(messages, list) else str(row.get("prompt", "")))


def _fields(found: Quality) -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__dataclass_fields__}
