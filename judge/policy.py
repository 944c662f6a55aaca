"""What a release must show: a gate's policy, read from YAML, versioned and frozen by digest like a rubric.

A policy is strict data: a misspelt key is an error with file, line and the key that was meant. Shipped policies
(``default``, ``strict``) are held to the digests in ``judge/gates/frozen.json``; a policy of your own is a path, and is
held to a ``frozen.json`` beside it, if there is one. Every decision carries the policy's name, version and digest.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from rubrics.source import Source, hidden_character, read_yaml

from .errors import InputError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = [
    "SHARES",
    "STAGES",
    "Guard",
    "Guarded",
    "Policy",
    "Protected",
    "Stage",
    "load_policy",
    "load_policy_text",
    "policy_digests",
    "shipped_policies",
]

NAME = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
STAGES = ("shadow", "1%", "5%", "25%", "100%")
"""The stages of a rollout, in order; ``rollout`` holds the table of moves between them."""
SHARES = {"shadow": 0.0, "1%": 0.01, "5%": 0.05, "25%": 0.25, "100%": 1.0}
"""The share of traffic that the candidate answers at each stage; in the shadow it answers beside, unseen."""

_FROZEN = "frozen.json"
_LISTS = Field(strict=False)  # a YAML list arrives as a Python list; its items stay strict


def _visible(value: str) -> str:
    if hidden := hidden_character(value):
        raise ValueError(f"invisible character {hidden[1]}; delete it")
    if not value.strip():
        raise ValueError("empty; write it out or leave the key away")
    return value


Name = Annotated[str, Field(pattern=NAME, max_length=64)]
Text = Annotated[str, Field(min_length=1), AfterValidator(_visible)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Margin = Annotated[float, Field(ge=0, lt=0.5, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
StageName = Literal["shadow", "1%", "5%", "25%", "100%"]
assert get_args(StageName) == STAGES


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Suites(_Strict):
    """Hard checks: ``checks`` names those that must have been made (``name`` or ``name@version``; none: any will do).

    Not one failure of a check of severity ``block`` is allowed. ``at_most`` also bounds the failure rate that the
    number of answers leaves open (95%, one-sided; 0 of n leave 3/n open): left away, it is printed and holds nothing.
    """

    required: bool = True
    checks: Annotated[tuple[Text, ...], _LISTS] = ()
    at_most: Rate | None = None


class Guard(_Strict):
    """One measure that may not get worse: a non-inferiority limit on its interval, never on its point.

    ``of`` says what is held to it: the paired ``difference`` (or ratio, where the measure is one), or the
    ``candidate``'s own figure. With ``at_most`` the interval's upper end must not lie above, with ``at_least`` its
    lower end not below. A measure that is not ``required`` and was not taken is reported as not judged and stops
    nothing; one that was taken is always held to its limit.
    """

    measure: Text
    of: Literal["difference", "candidate"] = "difference"
    at_most: Number | None = None
    at_least: Number | None = None
    required: bool = True

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("give exactly one of at_most and at_least")
        return self


class Win(_Strict):
    """The corrected win rate on the human scale.

    ``goal`` ``better``: its lower end must lie above 0.5; ``not_worse``: above 0.5 - ``margin``. ``detect`` is the gain
    that should be seen with chance ``power``; the labels still needed are counted for it.
    """

    goal: Literal["better", "not_worse"] = "better"
    margin: Margin = 0.0
    detect: Annotated[float, Field(gt=0, lt=0.5, allow_inf_nan=False)] = 0.03
    power: Annotated[float, Field(gt=0.5, lt=1, allow_inf_nan=False)] = 0.8

    @model_validator(mode="after")
    def _margin_for_a_reason(self) -> Self:
        if self.goal == "better" and self.margin:
            raise ValueError("a margin belongs to goal: not_worse; a better candidate has none")
        if self.goal == "not_worse" and not self.margin:
            raise ValueError("goal not_worse needs a margin above 0")
        return self

    @property
    def limit(self) -> float:
        """What the lower end must exceed."""
        return 0.5 - self.margin


class Length(_Strict):
    """The win rate at equal answer lengths, on the human scale; its lower end must lie above 0.5 - ``margin``."""

    required: bool = True
    margin: Margin = 0.0


class Protected(_Strict):
    """A segment that may not lose by more than ``margin``: its own non-inferiority limit (``category=safety``)."""

    segment: Text
    margin: Annotated[float, Field(gt=0, lt=0.5, allow_inf_nan=False)]


class Segments(_Strict):
    """No segment may lose: Benjamini-Hochberg ``q`` over all segments of all columns of ``by`` together.

    Segments with fewer labels than ``minimum`` are named and not tested.
    """

    required: bool = True
    by: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)] = ("category",)
    q: Rate = 0.05
    minimum: Annotated[int, Field(ge=2)] = 20
    protect: Annotated[tuple[Protected, ...], _LISTS] = ()


class Probes(_Strict):
    """How far the judge can be fooled: every measure ``probe.*`` must shift it by less than ``at_most`` (interval).

    ``canaries``: whether a run without canary pairs in it counts as judged. A run whose canaries failed is void in
    either case. ``days`` bounds the age of the probe's replies, ``invalid_at_most`` the share of comparisons without a
    verdict for every trick: a trick on which the judge falls silent is not shown to be harmless. Left away, neither
    holds anything, so that a policy written before there were such limits decides as it did.
    """

    required: bool = True
    at_most: Rate = 0.05
    canaries: bool = True
    days: Count | None = None
    invalid_at_most: Share | None = None


class Judge(_Strict):
    """What the judge must be: calibrated for this rubric and judge, better than a coin, and standing still.

    ``belief`` is the least word of the calibration report that will do; DO NOT BELIEVE and UNKNOWN never do.
    ``anchors``: whether an earlier run of the same pairs must show that it has not moved. ``invalid_at_most`` bounds
    the share of pairs without a verdict, ``days`` the age of the run, ``calibration_days`` that of the verdicts which
    its calibration was fitted on (left away: any age will do).
    """

    belief: Literal["believe", "with_care"] = "with_care"
    anchors: bool = False
    invalid_at_most: Share = 0.05
    days: Count = 30
    calibration_days: Count | None = None


class Guarded(_Strict):
    """A harm that is watched in traffic: a value from 0 (none) to 1 a request, by its name in the traffic file.

    The candidate may do at most ``margin`` more harm than the baseline. One that is not ``required`` and that no line
    of a stage says is named as not watched and does not hold the stage; one that is said is always held to its margin,
    and one that an earlier stage of the rollout said has to be said on.
    """

    metric: Text
    margin: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
    required: bool = True


class Stage(_Strict):
    """One stage: ``slack`` multiplies every margin for moving on (few users, wide bounds), ``units`` is its exposure.

    ``only`` are the values of the request's ``risk`` that may meet the candidate at this stage (none given: all); a
    request that does not say its risk meets it only where all may. After ``units`` requests without an answer a person
    decides.
    """

    name: StageName
    slack: Annotated[float, Field(ge=1, le=20, allow_inf_nan=False)] = 1.0
    units: Count = 2000
    only: Annotated[tuple[Text, ...], _LISTS] = ()


class Plan(_Strict):
    """How a candidate that may ship meets traffic: stages, guards, and one ``alpha`` over all of it.

    ``alpha`` is the chance of any wrong proposal to roll back over the whole rollout; guards and stages share it.
    """

    alpha: Annotated[float, Field(gt=0, lt=0.5, allow_inf_nan=False)] = 0.05
    guards: Annotated[tuple[Guarded, ...], Field(strict=False, min_length=1)]
    stages: Annotated[tuple[Stage, ...], _LISTS]

    @model_validator(mode="after")
    def _all_stages(self) -> Self:
        if tuple(stage.name for stage in self.stages) != STAGES:
            raise ValueError(f"stages must be {', '.join(STAGES)}, in this order")
        names = [guard.metric for guard in self.guards]
        if double := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"guard {double!r} is given twice; keep one")
        return self

    def stage(self, name: str) -> Stage:
        """The stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)


class Rules(_Strict):
    """The fields of a policy file.

    ``missing`` says what a required rule without evidence does (missing, stale, errored): ``hold`` or ``block``; it is
    never a pass.
    """

    name: Name
    version: Annotated[int, Field(ge=1, le=9999)]
    summary: Text
    missing: Literal["hold", "block"] = "hold"
    suites: Suites = Suites()
    guards: Annotated[tuple[Guard, ...], _LISTS] = ()
    win: Win = Win()
    length: Length = Length()
    segments: Segments = Segments()
    probes: Probes = Probes()
    judge: Judge = Judge()
    rollout: Plan

    @model_validator(mode="after")
    def _once(self) -> Self:
        given = [(guard.measure, guard.of, guard.at_most is None) for guard in self.guards]
        if double := next((key for key in given if given.count(key) > 1), None):
            raise ValueError(f"measure {double[0]!r} is held to the same side twice; keep one guard")
        return self


class Policy(Rules):
    """A policy file read: its rules and its identity. Make one with ``load_policy``.

    ``digest`` is the SHA-256 (hex) of the file in canonical form, ``text`` that form; ``frozen`` is true where a
    ``frozen.json`` lists exactly this digest.
    """

    digest: str
    text: str = Field(repr=False)
    frozen: bool = False

    @property
    def ref(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"


def shipped_policies() -> tuple[str, ...]:
    """Names of the policies that come with the package."""
    folder = files("judge").joinpath("gates")
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_policy(ref: str | Path) -> Policy:
    """Read a policy: a shipped one by name (``default``) or as ``gates/default.yaml``, or a file of your own.

    Raises ``InputError`` with file, line, field and fix: a file that cannot be read, a misspelt key, a value out of
    range, or a frozen policy that was edited.
    """
    path = Path(ref)
    name = path.stem if path.parts[:-1] in ((), ("gates",)) and path.suffix in ("", ".yaml") else ""
    if path.is_file():
        data, beside = path.read_bytes(), path.parent / _FROZEN
        frozen = beside.read_text(encoding="utf-8") if beside.is_file() else "{}"
        return _policy(data, str(path), frozen)
    if name not in shipped_policies():
        near = get_close_matches(name, shipped_policies(), 1)
        hint = f"did you mean {near[0]!r}?" if near else f"shipped are {', '.join(shipped_policies())}; or give a file"
        raise InputError(f"{ref}: no such policy; {hint}")
    folder = files("judge").joinpath("gates")
    return _policy(
        folder.joinpath(f"{name}.yaml").read_bytes(),
        f"judge/gates/{name}.yaml",
        folder.joinpath(_FROZEN).read_text(encoding="utf-8"),
    )


def load_policy_text(text: str, *, where: str) -> Policy:
    """A policy from the text that a decision recorded; ``where`` is only used in messages."""
    return _policy(text.encode(), where, "{}")


def policy_digests(names: tuple[str, ...] | None = None) -> dict[str, str]:
    """The digest of each shipped policy file, by ``name@version``: what ``frozen.json`` must say."""
    folder = files("judge").joinpath("gates")
    found = {}
    for name in names or shipped_policies():
        source = read_yaml(folder.joinpath(f"{name}.yaml").read_bytes(), f"judge/gates/{name}.yaml")
        found[f"{source.data['name']}@{source.data['version']}"] = source.digest
    return found


def _policy(data: bytes, path: str, frozen: str) -> Policy:
    source = read_yaml(data, path)
    try:
        Rules.model_validate(source.data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        raise InputError(f"{_problem(source, details[0])}{more}") from None
    try:
        table = json.loads(frozen)
        given = {str(key): str(value) for key, value in table.items()}
    except (ValueError, AttributeError):
        raise InputError(f"{Path(path).parent / _FROZEN}: not a JSON object of digests; restore it") from None
    ref = f"{source.data['name']}@{source.data['version']}"
    shipped = json.loads(files("judge").joinpath("gates").joinpath(_FROZEN).read_text(encoding="utf-8"))
    if ref in shipped and ref not in given and shipped[ref] != source.digest:
        raise InputError(f"{path}: {ref} is the name of a shipped policy with another text; give yours another `name:`")
    given = {**shipped, **given}
    if ref in given and given[ref] != source.digest:
        raise InputError(
            f"{path}: {ref} is frozen with another text; undo the edit, or raise `version:` (it is "
            f"{source.digest[:12]}, frozen is {given[ref][:12]})"
        )
    return Policy.model_validate({**source.data, "digest": source.digest, "text": source.text, "frozen": ref in given})


def _problem(source: Source, detail: ErrorDetails) -> str:
    """One pydantic error in the words of the file."""
    field = detail["loc"]
    if detail["type"] == "missing":
        return str(source.problem(field, f"missing; add `{field[-1]}:`"))
    if detail["type"] == "extra_forbidden":
        near = get_close_matches(str(field[-1]), _known_keys(field), n=1)
        return str(source.problem(field, "unknown key; " + (f"did you mean `{near[0]}`?" if near else "remove it")))
    given = detail["input"]
    shown = ""
    if isinstance(given, str | int | float) and len(repr(given)) <= 60:
        shown = f" (given: {given!r})"
    return str(source.problem(field, detail["msg"].removeprefix("Value error, ") + shown))


def _known_keys(field: tuple[int | str, ...]) -> list[str]:
    """The keys allowed where ``field`` stands."""
    model: Any = Rules
    for part in field[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            model = _inner(model.model_fields[part].annotation)
    return list(model.model_fields)


def _inner(annotation: Any) -> Any:
    """The model inside an annotation such as ``tuple[Guard, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inside = [_inner(part) for part in get_args(annotation) if part is not Ellipsis]
    return next((part for part in inside if part is not None), None)
