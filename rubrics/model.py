"""The rubric as values: strict, frozen pydantic models, and ``parse`` from the text of a file to a ``Rubric``."""

from __future__ import annotations

import math
from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import InputError
from .source import Malformed, Source, hidden_character, read
from .words import Outcome, Problem, RubricRef, pinned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

__all__ = ["CalibratedOn", "Criterion", "Example", "FrontMatter", "Rubric", "TieRule", "from_source", "parse"]

NAME = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
"""How names of rubrics and ids of criteria look: lower-case words joined by hyphens."""


def _visible(value: str) -> str:
    if hidden := hidden_character(value):
        raise ValueError(f"invisible character {hidden[1]}; delete it")
    if not value.strip():
        raise ValueError("empty; write it out or leave the key away")
    return value


Name = Annotated[str, Field(pattern=NAME, max_length=64)]
Text = Annotated[str, Field(min_length=1), AfterValidator(_visible)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Input = Literal["context", "reference"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Criterion(_Frozen):
    """One thing the judge looks at.

    ``weight`` is relative to the other criteria (see ``Rubric.shares``). An answer that violates a ``must`` criterion
    loses to one that does not, whatever the weights say.
    """

    id: Name
    text: Text
    weight: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
    must: bool = False


class TieRule(_Frozen):
    """When two answers count as equal.

    ``margin`` is the half width of the tie band around a soft preference of 0.5. ``conflict`` says what becomes of a
    pair whose two orders name different outcomes: ``mean`` averages the probabilities, ``tie`` calls it a tie.
    """

    margin: Annotated[float, Field(ge=0, lt=0.5, allow_inf_nan=False)] = 0.05
    conflict: Literal["mean", "tie"] = "mean"

    def outcome(self, win: float, tie: float, loss: float) -> Outcome:
        """The outcome of P(win), P(tie), P(loss), from the side that ``win`` belongs to.

        The soft preference is s = win + tie/2: ``WIN`` where s > 0.5 + margin, ``LOSS`` where s < 0.5 - margin, else
        ``TIE``. As the three sum to 1, s - 0.5 = (win - loss)/2; the difference is what is compared, since it changes
        its sign exactly when the sides change places: ``outcome(l, t, w) == outcome(w, t, l).mirrored`` for every
        float.

        Raises ``InputError`` where the three are not finite, negative, or miss a sum of 1 by more than 0.001.

            >>> TieRule(margin=0.05).outcome(0.52, 0.0, 0.48)
            <Outcome.TIE: 'tie'>
        """
        given = (win, tie, loss)
        if not all(map(math.isfinite, given)) or min(given) < 0 or abs(math.fsum(given) - 1) > 1e-3:
            raise InputError(
                f"P(win), P(tie), P(loss) = {given} must be non-negative and sum to 1; normalise them first"
            )
        if win - loss > 2 * self.margin:
            return Outcome.WIN
        return Outcome.LOSS if loss - win > 2 * self.margin else Outcome.TIE


class Example(_Frozen):
    """One worked example; ``first`` and ``second`` are places in a prompt, ``better`` names a place or ``tie``."""

    prompt: Text
    first: Text
    second: Text
    better: Literal["first", "second", "tie"]
    why: Text


class CalibratedOn(_Frozen):
    """A note on how well judges followed this rubric: judge, gold set, day, share of agreement, digest of the gold set.

    Not part of the rubric's digest.
    """

    gold: Text
    judge: Text
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    agreement: Share
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class FrontMatter(_Frozen):
    """The YAML fields at the head of a rubric file; the published JSON Schema is made from this model."""

    # A YAML list arrives as a Python list: strict=False on these lists alone lets it become a tuple, the items stay
    # strict.
    name: Name
    version: Annotated[int, Field(ge=1, le=9999)]
    title: Annotated[Text, Field(max_length=80)]
    summary: Annotated[Text, Field(max_length=400)]
    mode: Literal["pairwise"] = "pairwise"
    uses: Annotated[tuple[Input, ...], Field(strict=False, max_length=2)] = ()
    criteria: Annotated[tuple[Criterion, ...], Field(strict=False, min_length=1, max_length=12)]
    tie_rule: TieRule = TieRule()
    examples: Annotated[tuple[Example, ...], Field(strict=False, max_length=8)] = ()
    changelog: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    calibrated_on: Annotated[tuple[CalibratedOn, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _unique(self) -> Self:
        ids = [criterion.id for criterion in self.criteria]
        for kind, values in (("criteria: id", ids), ("uses:", [str(used) for used in self.uses])):
            if double := next((value for value in values if values.count(value) > 1), None):
                raise ValueError(f"{kind} {double!r} is given twice; keep one")
        return self


class Rubric(FrontMatter):
    """A rubric file read: its front matter, ``body`` (Markdown instructions to the judge) and identity.

    ``text`` is the whole file in canonical form and ``digest`` its SHA-256 (hex) without ``calibrated_on``.
    ``released`` is true where a ``frozen.json`` lists the rubric with exactly this digest. Make one with ``load`` or
    ``parse``.
    """

    body: str
    digest: str
    text: str = Field(repr=False)
    released: bool = False

    @property
    def ref(self) -> RubricRef:
        """Name, version and digest."""
        return RubricRef(self.name, self.version, self.digest)

    @property
    def pinned(self) -> str:
        """What a calibration is tied to: ``name@version``, with the digest where the text may still change."""
        return pinned(str(self.ref), self.digest, released=self.released)

    @property
    def shares(self) -> Mapping[str, float]:
        """Weights of the criteria normalised to a sum of 1, by id, in the order of the file; for display."""
        total = math.fsum(criterion.weight for criterion in self.criteria)
        return MappingProxyType({criterion.id: criterion.weight / total for criterion in self.criteria})


def parse(text: str | bytes, *, path: str = "<text>") -> Rubric:
    """Read the text of a rubric file; ``path`` is only used in messages.

    Raises ``Malformed`` (a ``RubricError``) with file, line, field and fix. The result is not released: only ``load``
    looks at ``frozen.json``.
    """
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return from_source(read(data, path))


def from_source(source: Source) -> Rubric:
    """Validate a file taken apart. Raises ``Malformed``."""
    try:
        FrontMatter.model_validate(source.data)
    except ValidationError as error:
        raise Malformed(tuple(_problem(source, detail) for detail in error.errors(include_url=False))) from error
    if not source.body:
        raise Malformed(
            (source.problem(("body",), "empty; write the instructions to the judge below the front matter"),)
        )
    return Rubric.model_validate({**source.data, "body": source.body, "digest": source.digest, "text": source.text})


def _problem(source: Source, detail: ErrorDetails) -> Problem:
    """One pydantic error in the words of the file."""
    field = detail["loc"]
    kind = detail["type"]
    if kind == "missing":
        return source.problem(field, f"missing; add `{field[-1]}:`")
    if kind == "extra_forbidden":
        near = get_close_matches(str(field[-1]), _known_keys(field), n=1)
        return source.problem(field, "unknown key; " + (f"did you mean `{near[0]}`?" if near else "remove it"))
    message = detail["msg"].removeprefix("Value error, ")
    given = detail["input"]
    shown = f" (given: {given!r})" if isinstance(given, str | int | float) and len(repr(given)) <= 60 else ""
    return source.problem(field, message + shown)


def _known_keys(field: tuple[int | str, ...]) -> list[str]:
    """The keys allowed where ``field`` stands."""
    parts: dict[str, type[BaseModel]] = {
        "criteria": Criterion,
        "tie_rule": TieRule,
        "examples": Example,
        "calibrated_on": CalibratedOn,
    }
    home = parts.get(str(field[0]), FrontMatter) if len(field) > 1 else FrontMatter
    return list(home.model_fields)
