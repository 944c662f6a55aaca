"""What a run says, as one value: rates with intervals, by category, with the doubt beside them. Pure: a frame in, a
report out.

``RunReport`` feeds every output (terminal, Markdown, JSON, HTML), so they cannot disagree. Every interval is clustered
by prompt. Invalid comparisons are counted and bound the headline: the net win rate if all of them had been losses, or
wins.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.bias import FlipSources, flip_sources
from calibration.estimates import Estimate, accuracy, cluster_codes, geometric_mean_ratio, mean, share
from rubrics import Outcome
from rubrics.errors import InputError

from .canaries import NO_CANARIES, CanaryVerdict, canary_verdict
from .cuts import Cut, cut_answers
from .money import total
from .screening import FLAGS

if TYPE_CHECKING:
    import polars

__all__ = ["Caveat", "Flagged", "JudgeWorth", "RunReport", "Slice", "summarise"]

LEVEL = 0.95
_FLIP_LIMIT = 0.12
_FIRST_LIMIT = 0.10
_LENGTH_LIMIT = 0.10
_SMALL = 30


@dataclass(frozen=True, slots=True)
class Slice:
    """The comparisons of one category, or of all.

    ``win``, ``tie`` and ``loss`` are shares of the judged comparisons; ``net`` is win minus loss, ``preference`` the
    mean soft preference. ``flips`` is the share whose two orders name different outcomes, ``first_place`` the share of
    decisive verdicts that went to the answer shown first (0.5 is unbiased), ``length_ratio`` the geometric mean of
    candidate over baseline length in characters. ``net_bounds`` is the net win rate with every invalid comparison a
    loss, and a win. The interval of ``net`` is widened by Bonferroni over the categories, so that all hold at once
    (its ``level`` says how far); ``verdict`` is ``better``, ``worse`` or ``unclear`` by that very interval. ``cost`` is
    what its calls took in US dollars and ``cost_per_verdict`` that over the replies that were asked for; ``None`` where
    a price is unknown or nothing was asked.
    """

    name: str
    n: int
    judged: int
    invalid: int
    win: Estimate | None
    tie: Estimate | None
    loss: Estimate | None
    net: Estimate | None
    preference: Estimate | None
    flips: Estimate | None
    first_place: Estimate | None
    length_ratio: Estimate | None
    net_bounds: tuple[float, float]
    verdict: str
    cost: float | None = None
    cost_per_verdict: float | None = None


@dataclass(frozen=True, slots=True)
class JudgeWorth:
    """How often the judge agreed with the labels that the eval set carries, beside two judges that read nothing.

    ``accuracy`` is the share of decisively labelled comparisons whose preferred side (soft preference over or under
    0.5; exactly 0.5 counts half) is the labelled one; ``longer`` and ``shorter`` are the same for "the longer (shorter)
    answer is better". ``by_category`` holds the same accuracy per slice.
    """

    n: int
    accuracy: Estimate
    longer: Estimate
    shorter: Estimate
    by_category: tuple[tuple[str, Estimate], ...]

    @property
    def skilled(self) -> bool:
        """Whether the accuracy interval lies above chance and above both length baselines' values."""
        return self.accuracy.low > max(0.5, self.longer.value, self.shorter.value)


@dataclass(frozen=True, slots=True)
class Caveat:
    """One way in which the report may mislead, in a sentence; ``kind`` is a stable word for machines."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Flagged:
    """One flag of the screen: how many answers of each side carry it, and pairs to read."""

    flag: str
    candidate: int
    baseline: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunReport:
    """A run summarised; ``header`` is the run's header record without the rubric text.

    ``cost`` is what its calls took in US dollars, those that found out the judge's mode included, and ``cost_most`` the
    most they can have taken, with every attempt that was possibly paid at its upper bound; ``None`` where a price is
    unknown.
    """

    run_id: str
    sealed: bool
    header: Mapping[str, Any]
    overall: Slice
    categories: tuple[Slice, ...]
    worth: JudgeWorth | None
    invalid_reasons: tuple[tuple[str, int], ...]
    cached: int
    cost: float | None
    tokens: int
    caveats: tuple[Caveat, ...]
    by: str = "category"
    cost_most: float | None = None
    possibly_paid: int = 0
    repeats: FlipSources | None = None
    """How far verdicts differ between repeats of one prompt and between the two orders; ``None`` without repeats."""

    canaries: CanaryVerdict = NO_CANARIES
    """What the canary pairs of the run say; where they fail the run is void."""
    screened: tuple[Flagged, ...] = ()
    """What the deterministic screen flags in the answers."""
    cut: Cut | None = None
    """Answers that a token limit ended, and whether they won; ``None`` where no answer says how it ended."""

    @property
    def believable(self) -> bool:
        """Whether nothing in this report says outright that the judge cannot be believed."""
        return not {"judge", "no_skill", "void"} & {caveat.kind for caveat in self.caveats}


def summarise(
    header: Mapping[str, Any],
    frame: polars.DataFrame,
    *,
    by: str = "category",
    sealed: bool = True,
    canaries: polars.DataFrame | CanaryVerdict | None = None,
) -> RunReport:
    """Summarise the comparisons of one run (columns of ``schema/001_runs.sql``) at the 95% level.

    ``by`` names what the slices are: ``category``, or a field of the items' metadata. ``canaries`` are the run's
    canary pairs or what they say: they void it or not and count for nothing else but its cost. Raises ``InputError``
    where no item has the field.
    """
    verdict = canaries if isinstance(canaries, CanaryVerdict) else canary_verdict(header, canaries, frame)
    frame = _sliced(frame, by)
    names = sorted({str(name) for name in frame["category"].to_list()} - {""})
    count = max(1, len(names))
    overall = _slice("all", frame, tests=1)
    categories = tuple(_slice(name, frame.filter(frame["category"] == name), tests=count) for name in names)
    worth = _worth(frame, names)
    reasons = frame.filter(frame["invalid"].is_not_null())["invalid"].to_list()
    repeats = _repeats(frame)
    flagged = _flagged(frame)
    cut = cut_answers(frame)
    calls = header.get("calls", {})
    lost, lost_cost = calls.get("possibly_paid", 0), calls.get("possibly_paid_cost", 0.0)
    cost = whole_cost(overall.cost, verdict, header)
    shown = {key: value for key, value in header.items() if key not in ("rubric_text", "t", "format")}
    return RunReport(
        run_id=str(header["run_id"]),
        sealed=sealed,
        header=shown,
        overall=overall,
        categories=tuple(sorted(categories, key=lambda part: part.net.value if part.net else 0.0)),
        worth=worth,
        invalid_reasons=tuple((reason, reasons.count(reason)) for reason in sorted(set(reasons))),
        cached=int(frame["cached"].sum()),
        cost=cost,
        tokens=int(frame["tokens"].sum()),
        caveats=(
            *_canary_caveats(verdict),
            *_caveats(header, overall, categories, worth),
            *_noise_caveats(repeats),
            *_rubric_caveats(header, frame),
            *_screen_caveats(flagged, frame.height),
            *_cut_caveats(cut),
        ),
        by=by,
        cost_most=total((cost, lost_cost)),
        possibly_paid=lost,
        repeats=repeats,
        canaries=verdict,
        screened=flagged,
        cut=cut,
    )


def whole_cost(pairs: float | None, canaries: CanaryVerdict, header: Mapping[str, Any]) -> float | None:
    """What a run took in US dollars: its ``pairs``, its canaries, and finding out the judge's mode; ``None`` where one
    of them is unknown.
    """
    return total((pairs, canaries.cost, header.get("calls", {}).get("probe_cost", 0.0)))


def _flagged(frame: polars.DataFrame) -> tuple[Flagged, ...]:
    """What the screen flags, by flag: how many answers of each side, and the first few pairs."""
    rows = frame.filter((frame["repeat"] == 0) & frame["flags"].str.contains(":"))
    found: dict[str, dict[str, list[str]]] = {}
    for pair, flags in rows.select("pair_id", "flags").iter_rows():
        for flag, colon, side in (name.partition(":") for name in flags.split()):
            if colon:
                found.setdefault(flag, {"candidate": [], "baseline": []})[side].append(pair)
    return tuple(
        Flagged(flag, len(of["candidate"]), len(of["baseline"]), tuple([*of["candidate"], *of["baseline"]][:5]))
        for flag, of in sorted(found.items())
    )


def _canary_caveats(verdict: CanaryVerdict) -> Iterator[Caveat]:
    if verdict.void:
        yield Caveat("void", verdict.text)
    elif verdict.state == "unknown" or verdict.failed:
        yield Caveat("canaries", verdict.text)


def _screen_caveats(flagged: Sequence[Flagged], n: int) -> Iterator[Caveat]:
    for row in flagged:
        yield Caveat(
            "screen",
            f"The screen flags {row.candidate} of the candidate's and {row.baseline} of the baseline's answers to {n} "
            f"comparisons: {row.flag.replace('_', ' ')} ({FLAGS.get(row.flag, '')}); read "
            f"{', '.join(row.examples[:3])}.",
        )


def _cut_caveats(cut: Cut | None) -> Iterator[Caveat]:
    if cut is not None and (cut.candidate or cut.baseline):
        yield Caveat("cut", cut.text)


def _sliced(frame: polars.DataFrame, by: str) -> polars.DataFrame:
    """The frame with its ``category`` column replaced by a metadata field."""
    if by == "category":
        return frame
    import polars

    rows = [json.loads(row) for row in frame["metadata"].to_list()]
    known = sorted({name for row in rows for name in row})
    if by not in known:
        raise InputError(
            f"--by {by}: no item has this field; there are category{''.join(', ' + name for name in known)}"
        )
    return frame.with_columns(polars.Series("category", [str(row.get(by, "")) for row in rows]))


def _slice(name: str, frame: polars.DataFrame, *, tests: int) -> Slice:
    judged = frame.filter(frame["outcome"].is_not_null())
    clusters = cluster_codes(judged["prompt_digest"].to_list(), judged.height)
    outcome = np.array(judged["outcome"].to_list(), dtype=object)
    win, tie, loss = ((outcome == word).astype(float) for word in ("win", "tie", "loss"))
    sign = win - loss
    net = mean(sign, clusters=clusters, level=1 - (1 - LEVEL) / tests, bounds=(-1.0, 1.0))
    invalid = frame.height - judged.height
    total = max(frame.height, 1)
    return Slice(
        name=name,
        n=frame.height,
        judged=judged.height,
        invalid=invalid,
        win=share(win, clusters=clusters, level=LEVEL),
        tie=share(tie, clusters=clusters, level=LEVEL),
        loss=share(loss, clusters=clusters, level=LEVEL),
        net=net,
        preference=mean(judged["preference"].to_numpy(), clusters=clusters, level=LEVEL, bounds=(0.0, 1.0)),
        flips=share(
            (~judged["consistent"].fill_null(value=False)).to_numpy().astype(float), clusters=clusters, level=LEVEL
        ),
        first_place=_first_place(judged),
        length_ratio=_length_ratio(frame),
        net_bounds=((float(sign.sum()) - invalid) / total, (float(sign.sum()) + invalid) / total),
        verdict=_verdict(net),
        **_costs(frame),
    )


def _costs(frame: polars.DataFrame) -> dict[str, float | None]:
    """What a slice cost, and that per reply that was asked for; identical answers and cached replies ask for none."""
    if frame["cost"].null_count():
        return {"cost": None, "cost_per_verdict": None}
    cost = float(frame["cost"].sum())
    identical = int(frame["flags"].str.split(" ").list.contains("identical").sum())
    asked = 2 * (frame.height - identical) - int(frame["cached"].sum())
    return {"cost": cost, "cost_per_verdict": cost / asked if asked > 0 else None}


def _verdict(net: Estimate | None) -> str:
    if net is None or (net.low <= 0 <= net.high):
        return "unclear"
    return "better" if net.low > 0 else "worse"


def _first_place(frame: polars.DataFrame) -> Estimate | None:
    """Share of decisive verdicts, over both orders, that chose the answer shown first."""
    hits: list[float] = []
    clusters: list[str] = []
    for column, chosen in (("cf_outcome", "win"), ("bf_outcome", "loss")):
        rows = frame.filter(frame[column].is_in(["win", "loss"]) & ~frame["flags"].str.contains("identical"))
        hits += [float(value == chosen) for value in rows[column].to_list()]
        clusters += rows["prompt_digest"].to_list()
    return share(hits, clusters=clusters, level=LEVEL)


def _length_ratio(frame: polars.DataFrame) -> Estimate | None:
    """Geometric mean of (candidate + 1) / (baseline + 1) characters; the one keeps an empty answer in."""
    clusters = frame["prompt_digest"].to_list()
    return geometric_mean_ratio(
        frame["candidate_chars"].to_numpy() + 1, frame["baseline_chars"].to_numpy() + 1, clusters=clusters, level=LEVEL
    )


def _worth(frame: polars.DataFrame, names: Sequence[str]) -> JudgeWorth | None:
    rows = frame.filter(frame["label"].is_in(["win", "loss"]) & frame["outcome"].is_not_null())
    if rows.height == 0:
        return None
    preference = rows["preference"].to_numpy()
    longer = np.sign(rows["candidate_chars"].to_numpy() - rows["baseline_chars"].to_numpy())
    accuracy = _accuracy(rows, np.sign(preference - 0.5))
    first, second = _accuracy(rows, longer), _accuracy(rows, -longer)
    if accuracy is None or first is None or second is None:
        return None
    by_category = []
    for name in names:
        part = rows.filter(rows["category"] == name)
        found = _accuracy(part, np.sign(part["preference"].to_numpy() - 0.5)) if part.height else None
        if found is not None:
            by_category.append((name, found))
    return JudgeWorth(rows.height, accuracy, first, second, tuple(by_category))


def _accuracy(rows: polars.DataFrame, side: Any) -> Estimate | None:
    wanted = np.where(np.array(rows["label"].to_list(), dtype=object) == "win", 1.0, -1.0)
    hits = np.where(side == 0, 0.5, (side == wanted).astype(float))
    clusters = rows["prompt_digest"].to_list()
    return accuracy(hits, clusters=clusters, level=LEVEL)


def _caveats(
    header: Mapping[str, Any], overall: Slice, categories: Sequence[Slice], worth: JudgeWorth | None
) -> Iterator[Caveat]:
    if header.get("judge_notice"):
        yield Caveat("judge", str(header["judge_notice"]))
    yield Caveat(
        "uncalibrated",
        "The rates are on the judge's scale: no human labels correct them, so they are no human win rate.",
    )
    if worth is not None and not worth.skilled:
        yield Caveat(
            "no_skill",
            f"On the {worth.n} labelled comparisons of this set the judge is right in {worth.accuracy.value:.0%} "
            f"[{worth.accuracy.low:.0%}, {worth.accuracy.high:.0%}]; always picking the longer answer is right in "
            f"{worth.longer.value:.0%}, the shorter in {worth.shorter.value:.0%}. No skill beyond that is shown.",
        )
    if overall.flips is not None and overall.flips.value > _FLIP_LIMIT:
        share = f"{overall.flips.value:.0%}"
        yield Caveat("flips", f"{share} of the pairs get another verdict when the answers change places.")
    if overall.first_place is not None and abs(overall.first_place.value - 0.5) > _FIRST_LIMIT:
        share = f"{overall.first_place.value:.0%}"
        text = f"{share} of the decisive verdicts go to the answer shown first; the swap averages that out."
        yield Caveat("position", text)
    yield from _data_caveats(header, overall, categories)


def _repeats(frame: polars.DataFrame) -> FlipSources | None:
    """Noise and order flips where pairs were judged more than once."""
    if not frame["repeat"].max():
        return None
    calls: dict[str, tuple[list[Outcome | None], list[Outcome | None]]] = {}
    prompts: dict[str, str] = {}
    columns = ("pair_id", "prompt_digest", "cf_outcome", "bf_outcome")
    for pair, prompt, *said in frame.select(columns).iter_rows():
        prompts[pair] = prompt
        for seen, outcome in zip(calls.setdefault(pair, ([], [])), said, strict=True):
            seen.append(Outcome(outcome) if outcome else None)
    return flip_sources(list(calls.values()), clusters=list(prompts.values()), level=LEVEL)


def _noise_caveats(repeats: FlipSources | None) -> Iterator[Caveat]:
    if repeats is None or repeats.noise is None or repeats.order is None or repeats.position is None:
        return
    noise, order, position = repeats.noise, repeats.order, repeats.position
    yield Caveat(
        "noise",
        f"Asked again in the same order, the judge says something else in {noise.value:.0%} [{noise.low:.0%}, "
        f"{noise.high:.0%}] of the cases (noise), with the places changed in {order.value:.0%} [{order.low:.0%}, "
        f"{order.high:.0%}]: the order adds {100 * position.value:+.1f} pp [{100 * position.low:+.1f}, "
        f"{100 * position.high:+.1f}] ({noise.n} pairs).",
    )


def _rubric_caveats(header: Mapping[str, Any], frame: polars.DataFrame) -> Iterator[Caveat]:
    if not header.get("rubric_released", True):
        yield Caveat("draft", f"The rubric {header['rubric']} is a draft: its text may change under the same name.")
    unread = int(frame["flags"].str.split(" ").list.contains("no_logprobs").sum())
    if unread and "logprobs" in str(header["judge"].get("decoding", "")):
        text = f"In {unread} of {frame.height} comparisons the judge was asked for label probabilities and gave none;"
        yield Caveat("no_logprobs", text + " its text was read instead, as certain as text is: 0 or 1.")
    for name in ("context", "reference"):
        count = int(frame["flags"].str.split(" ").list.contains(f"no_{name}").sum())
        if count:
            text = f"{count} of {frame.height} items have no {name}, by which this rubric judges."
            yield Caveat(f"no_{name}", text)


def _data_caveats(header: Mapping[str, Any], overall: Slice, categories: Sequence[Slice]) -> Iterator[Caveat]:
    ratio = overall.length_ratio
    if ratio is not None and abs(np.log(ratio.value)) > np.log(1 + _LENGTH_LIMIT):
        share = f"{abs(ratio.value - 1):.0%} {'longer' if ratio.value > 1 else 'shorter'}"
        text = f"The candidate's answers are {share} in characters (typical pair); nothing here separates length from "
        text += "quality."
        yield Caveat("length", text)
    if overall.invalid:
        low, high = (f"{100 * bound:+.1f}" for bound in overall.net_bounds)
        text = f"{overall.invalid} of {overall.n} comparisons are invalid; the net win rate lies between {low} and "
        yield Caveat("invalid", text + f"{high} pp whatever they were.")
    calls = header.get("calls", {})
    if calls.get("possibly_paid"):
        bound = calls.get("possibly_paid_cost")
        most = "at a price that is not known" if bound is None else f"for at most ${bound:.4f} on top of the cost"
        text = (
            f"{calls['possibly_paid']} calls were possibly paid without an answer (a crash, a lost connection), {most}."
        )
        yield Caveat("possibly_paid", text)
    if calls.get("given_up"):
        text = f"{calls['given_up']} asks were given up, because the process died each time they were asked."
        yield Caveat("given_up", text)
    left = header["evalset"]["left_out"]
    if left:
        kinds = ", ".join(f"{count} {kind}" for kind, count in left.items())
        yield Caveat("left_out", f"{sum(left.values())} rows of the eval set were left out: {kinds}.")
    if header.get("tie_margin") is not None:
        margin = f"{header['tie_margin']:g}"
        yield Caveat("resettled", f"Settled anew under a tie margin of {margin}; the run's own rubric says otherwise.")
    small = sum(part.judged < _SMALL for part in categories)
    if not categories and overall.judged < _SMALL:
        yield Caveat("small", f"Only {overall.judged} comparisons were judged; read this as a hint.")
    elif small:
        text = f"{small} of {len(categories)} categories have fewer than {_SMALL} judged pairs; read them as hints."
        yield Caveat("small", text)
