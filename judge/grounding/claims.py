"""``ground``: an answer taken apart into claims, each held against the supplied documents.

    from judge.grounding import ground
    grounding = ground("The bridge opened in 1935.", ["The bridge opened in 1932."])
    grounding.claims[0].supported, grounding.claims[0].contradictions[0].instead      # False, '1932'

Nothing is ever supported for want of documents: without them, or where they cannot be read here (another language), the
answer is not judged and ``not_judged`` says why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import InputError
from ..types import Finding, Severity, Span
from .coefficients import Coefficients, shipped
from .contradictions import Contradiction, contradictions
from .documents import Documents, Fit
from .likelihood import Reader, reading
from .words import Token, folded, language_problem, sentences, tokens, uncited

__all__ = [
    "CHECK",
    "CONTRADICTION_CHECK",
    "MAX_CLAIMS",
    "Claim",
    "Evidence",
    "Grounding",
    "features",
    "ground",
    "ground_in",
    "indexed",
]

CHECK = "grounded@1"
CONTRADICTION_CHECK = "grounded.contradiction@1"
MAX_CLAIMS = 5_000
"""Claims an answer may have: a longer one is no answer, and is not judged."""

_ASIDE = re.compile(
    r"(?:i|we)(?: am|'m| are|'re)? (?:sorry|afraid|unable|happy to|glad to)\b"
    r"|(?:i|we) (?:do not|don't|cannot|can't|could not|couldn't|did not|didn't) "
    r"(?:know|find|answer|say|see|determine|have)\b"
    r"|(?:i|we) (?:hope|apologi[sz]e)\b|let me know\b|as an ai\b|feel free\b|please\b|(?:happy|glad) to help\b"
    r"|(?:sure|certainly|of course)\b[^a-z]*(?:here|$)|here (?:is|are|'s)\b|thank(?:s| you)\b"
    r"|(?:yes|no|okay|ok|right|correct)\b[^a-z0-9]*$|you(?:'re| are) welcome\b|(?:great|good) question\b"
    r"|(?:unfortunately, )?(?:the|this|these|your|provided|given) (?:provided |given |supplied )?"
    r"(?:document|context|text|passage|source|article|material)s? "
    r"(?:(?:does not|doesn't|do not|don't|did not) (?:say|mention|specify|state|contain|provide|include|give)\b"
    r"|(?:say|says|said|state|states) nothing\b|(?:name|names|give|gives|mention|mentions) no\b)"
    r"|there is no (?:information|mention|answer)\b|(?:this|that|it) is not (?:mentioned|stated|specified|given)\b",
    re.IGNORECASE,
)
_FEELING = (
    r"(?:frustrations?|concerns?|situation|questions?|worr(?:y|ies)|disappointment|confusion|annoyance|anxiety|"
    r"curiosity|hesitation|inconvenience|pain|feelings?|urgency)"
)
_COURTESY = re.compile(
    r"(?:absolutely|definitely|indeed|exactly|sure|certainly|of course|no (?:problem|worries)|my pleasure|gladly|"
    r"understood|got it|noted|welcome|congratulations|cheers|(?:kind|best|warm) regards)"
    r"(?: (?:then|again|thing|indeed))?"
    r"|(?:hello|hi|hey|dear|good (?:morning|afternoon|evening))(?: [a-z]{1,20}){0,2}"
    r"|(?:great|good|wonderful|fantastic) news"
    r"|(?:we|i) (?:take|value|appreciate|respect) your [a-z]{1,20}(?: and [a-z]{1,20})?"
    r"(?: (?:(?:very|extremely|really) )?(?:seriously|much))?"
    rf"|(?:we|i) (?:completely |fully |totally )?understand your {_FEELING}(?:(?: and|,) (?:your )?{_FEELING})?",
    re.IGNORECASE,
)
"""Greetings, acknowledgements and courtesies that are all a sentence says; one that goes on to say more is a claim, and
so is one about a thing that a document may say something of ("I understand your policy covers water damage").
"""
_LEFT = re.compile(r"[^a-z0-9]*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The stretch of a document that supports a claim best: its number, characters and text."""

    document: int
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of an answer, with its characters there.

    ``support`` is the probability that a person would call it supported, ``supported`` whether that reaches the
    coefficients' threshold with nothing contradicted. Both are ``None`` for what makes no claim (``skipped`` says why:
    ``question``, ``heading``, ``code``, ``aside``, ``nothing said``).
    """

    start: int
    end: int
    text: str
    support: float | None = None
    supported: bool | None = None
    evidence: Evidence | None = None
    contradictions: tuple[Contradiction, ...] = ()
    features: Mapping[str, float] = field(default_factory=dict)
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class Grounding:
    """An answer's claims. ``not_judged`` says why there is no judgement of it (then nothing in it is supported), and is
    empty otherwise. ``coefficients`` names what weighed the evidence.
    """

    claims: tuple[Claim, ...]
    coefficients: str
    not_judged: str = ""

    @property
    def judged(self) -> tuple[Claim, ...]:
        """The sentences that make a claim and were judged."""
        return tuple(claim for claim in self.claims if claim.support is not None)

    @property
    def unsupported(self) -> tuple[Claim, ...]:
        """The claims that are not supported."""
        return tuple(claim for claim in self.judged if not claim.supported)

    @property
    def unsupported_share(self) -> float | None:
        """Share of the claims that are not supported; ``None`` where nothing was judged."""
        return len(self.unsupported) / len(self.judged) if self.judged else None

    @property
    def contradictions(self) -> tuple[Contradiction, ...]:
        """Everything in the answer that the documents say otherwise or do not have."""
        return tuple(one for claim in self.claims for one in claim.contradictions)

    def findings(self, pair_id: str, side: str, *, severity: Severity = Severity.WARN) -> tuple[Finding, ...]:
        """Two findings: whether every claim is supported (``grounded@1``), and whether nothing is contradicted
        (``grounded.contradiction@1``), with the places in the answer.

        An answer that was not judged passes neither and fails neither (``passed`` is ``None``).
        """
        if self.not_judged:
            return tuple(
                Finding(check, pair_id, side, None, severity, f"not judged: {self.not_judged}")
                for check in (CHECK, CONTRADICTION_CHECK)
            )
        bad, odd = self.unsupported, self.contradictions
        detail = f"{len(bad)} of {len(self.judged)} claims are not supported ({self.coefficients})" if bad else ""
        return (
            Finding(CHECK, pair_id, side, not bad, severity, detail, tuple(Span(c.start, c.end, _why(c)) for c in bad)),
            Finding(
                CONTRADICTION_CHECK,
                pair_id,
                side,
                not odd,
                severity,
                "; ".join(str(one) for one in odd[:3]) + ("; ..." if len(odd) > 3 else ""),
                tuple(Span(one.start, one.end, str(one)) for one in odd),
            ),
        )


def ground(
    answer: str,
    context: Sequence[str],
    coefficients: Coefficients | None = None,
    *,
    reader: Reader | None = None,
) -> Grounding:
    """Hold an answer against the documents of ``context``, with the shipped coefficients unless others are given.

    Coefficients that weigh a model's likelihood (``shipped_local``) need a ``reader`` (``likelihood.open_local``).

    Pure: the same texts give the same value. Raises ``InputError`` where the context is no list of texts. Source of the
    features: docs/grounding.md. Example: see the module.
    """
    documents = indexed(context)
    return ground_in(documents, answer, coefficients, reader=reader)


def ground_in(
    documents: Documents, answer: str, coefficients: Coefficients | None = None, *, reader: Reader | None = None
) -> Grounding:
    """``ground`` with documents that are indexed already: for several answers to one question."""
    weighed = shipped() if coefficients is None else coefficients
    if not isinstance(answer, str):
        raise InputError(f"an answer is a text, not {type(answer).__name__}")
    problem = _problem(documents, answer)
    if problem:
        return Grounding((), weighed.name, problem)
    whole = folded(answer)
    text = uncited(whole, len(documents.texts))
    found: list[Claim | tuple[int, int, str]] = []
    drafts: dict[str, _Draft] = {}
    judged = 0
    for sentence in sentences(whole):
        start, end = sentence.start, sentence.end
        said = answer[start:end]
        skipped = sentence.skipped or ("aside" if _is_aside(whole, start, end) else "")
        if not skipped and not any(word.content for word in tokens(text, start, end)):
            skipped = "nothing said"
        if skipped:
            found.append(Claim(start, end, said, skipped=skipped))
            continue
        judged += 1
        if judged > MAX_CLAIMS:
            return Grounding((), weighed.name, f"more than {MAX_CLAIMS:,} claims: no answer is that long")
        if said not in drafts:
            drafts[said] = _Draft(documents, text, start, end)
        found.append((start, end, said))
    read = _read(documents, drafts, reader) if weighed.reads else {}
    claims = tuple(
        one if isinstance(one, Claim) else drafts[one[2]].claim(one, weighed, read.get(one[2])) for one in found
    )
    return Grounding(claims, weighed.name, "" if judged else "the answer makes no claim")


def _is_aside(text: str, start: int, end: int) -> bool:
    """Whether a sentence speaks of the answer itself, or is a courtesy and nothing else."""
    if _ASIDE.match(text, start, end):
        return True
    courtesy = _COURTESY.match(text, start, end)
    return courtesy is not None and _LEFT.match(text, courtesy.end(), end) is not None


def features(claim: Sequence[Token], documents: Documents, fit: Fit) -> dict[str, float]:
    """What is weighed, each in [0, 1]:

    ``phrases``   share of the claim's neighbouring word pairs that stand so in the documents (ROUGE-2 precision, over
    words without their endings); ``order`` the longest common subsequence with the best evidence over the claim's
    words (ROUGE-L precision, Lin 2004); ``coverage`` share of the claim's weight, by rarity, within the best evidence;
    ``stitched`` from how many more sentences than one its longest stretches come, 4 and more as 1: what summarisers
    stitch together from far places is often wrong although every word is there.
    """
    fragments = documents.fragments(claim, near=fit.first)
    count = len(claim)
    total = float(fit.weights.sum())
    used = {documents.sentence_at(one.position) for one in fragments if one.length > 1 or claim[one.at].content}
    in_order = documents.in_order(claim, fit.first, fit.last) if fit.first >= 0 else 0
    pairs = sum(one.length - 1 for one in fragments)
    return {
        "phrases": pairs / (count - 1) if count > 1 else float(bool(fragments)),
        "order": in_order / count,
        "coverage": float(fit.weights @ fit.within) / total if total else 0.0,
        "stitched": min(max(len(used) - 1, 0), 4) / 4,
    }


def indexed(context: Sequence[str]) -> Documents:
    """The documents of an item, ready to be asked; blank ones are left out. Raises ``InputError`` where the context is
    no list of texts.
    """
    if isinstance(context, str):
        raise InputError("the context is a list of documents, not one text; write [text]")
    if not isinstance(context, Sequence):
        raise InputError(f"the context is a list of documents, not {type(context).__name__}")
    for number, text in enumerate(context, 1):
        if not isinstance(text, str):
            raise InputError(f"document {number} of the context is {type(text).__name__}, not a text")
    return Documents([text for text in context if text.strip()])


def _problem(documents: Documents, answer: str) -> str:
    """Why an answer cannot be judged, or an empty string."""
    if not documents.texts:
        return "no context"
    if not len(documents):
        return "the context has no words"
    if not answer.strip():
        return "the answer is empty"
    if documents.problem:
        return f"the context is {documents.problem}"
    problem = language_problem(answer)
    return f"the answer is {problem}" if problem else ""


class _Draft:
    """One claim as the words have it, before it is weighed; said again elsewhere it is the same draft."""

    def __init__(self, documents: Documents, text: str, start: int, end: int) -> None:
        words = tokens(text, start, end)
        fit = documents.fit(words)
        self.start = start
        self.odd = contradictions(text, words, documents, fit)
        self.features = features(words, documents, fit)
        self.place = documents.evidence(fit)
        self.evidence = None
        if self.place is not None:
            place = self.place
            self.evidence = Evidence(place.document, place.start, place.end, documents.text_of(place))

    def claim(self, at: tuple[int, int, str], coefficients: Coefficients, likelihood: float | None) -> Claim:
        """The claim at a place of the answer, weighed."""
        start, end, said = at
        values = self.features if likelihood is None else {**self.features, "likelihood": likelihood}
        support = coefficients.probability(values)
        by = start - self.start
        odd = tuple(replace(one, start=one.start + by, end=one.end + by) for one in self.odd)
        supported = support >= coefficients.threshold and not odd
        return Claim(start, end, said, support, supported, self.evidence, odd, values)


def _read(documents: Documents, drafts: Mapping[str, _Draft], reader: Reader | None) -> dict[str, float]:
    """How likely each claim is after what it is read with, by the model."""
    if reader is None:
        raise InputError(
            "these coefficients weigh a model's likelihood, so a reader is needed: likelihood.open_local()"
        )
    by: dict[str, list[str]] = {}
    for said, draft in drafts.items():
        by.setdefault(reading(documents, draft.place), []).append(said)
    return {
        said: value for text, claims in by.items() for said, value in zip(claims, reader(text, claims), strict=True)
    }


def _why(claim: Claim) -> str:
    if claim.contradictions:
        return "; ".join(str(one) for one in claim.contradictions)
    place = "" if claim.evidence is None else f"; nearest: {' '.join(claim.evidence.text.split())[:120]!r}"
    return f"support {claim.support:.2f}{place}"
