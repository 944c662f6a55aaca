"""One report, several surfaces: terminal text, Markdown, JSON and a self-contained HTML page.

All take the same ``RunReport`` and print the same numbers. Model text is hostile: control characters never reach a
terminal, and the HTML escapes every value, loads nothing and runs no script.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import resources
from typing import TYPE_CHECKING, Any

from .types import Comparison

if TYPE_CHECKING:
    import polars

    from calibration.estimates import Estimate

    from .store import Store
    from .summary import RunReport, Slice

__all__ = [
    "Example",
    "comparison_json",
    "comparison_text",
    "pick_examples",
    "safe",
    "to_html",
    "to_json",
    "to_markdown",
    "to_text",
]

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f\ud800-\udfff]"
)
_SHOWN = 2_000
_DOUBT = "This is what the judge says, and this judge cannot be trusted with a decision: see below how far it can be."
_EXAMPLES = 12


def safe(text: str) -> str:
    """Text that cannot steer a terminal: control, bidi and zero-width characters as visible ``<U+XXXX>``; tab and
    newline stay.
    """
    return _UNSAFE.sub(lambda match: f"<U+{ord(match[0]):04X}>", text)


@dataclass(frozen=True, slots=True)
class Example:
    """One pair to read next to the numbers; texts are cut to 2,000 characters with a note."""

    pair_id: str
    category: str
    why: str
    prompt: str
    candidate: str
    baseline: str
    outcome: str
    preference: float | None
    label: str


def to_text(report: RunReport) -> str:
    """The terminal report, at most 80 columns wide and readable without colour."""
    head = report.header
    name = report.run_id + ("" if report.sealed else "  UNFINISHED")
    lines = [f"run {name}  {head['rubric']}  judge {safe(_judge(report))}", ""]
    lines.append(f"{'':12}{'judged':>8} {'win':>6} {'tie':>6} {'loss':>6} {'net':>9}  {'95% interval':17}")
    lines += [_rate_row(part) for part in (report.overall, *report.categories)]
    if report.overall.invalid:
        low, high = report.overall.net_bounds
        lines += _wrap(
            f"with the {report.overall.invalid} invalid as losses or wins, all: net {_pp(low)} to {_pp(high)}"
        )
    if not report.believable:
        lines += ["", *_wrap(_DOUBT)]
    lines += ["", f"{'':15}{'flips':>6} {'first place':>12} {'length':>7} {'invalid':>8}"]
    lines += [_doubt_row(part) for part in (report.overall, *report.categories)]
    lines += [
        "",
        *_wrap(
            "net = wins minus losses, in points, from the candidate's side; intervals are clustered by prompt; better "
            "and "
            "worse hold for all categories at once (Bonferroni). flips = other verdict after swapping; first place = "
            "decisive "
            "verdicts for the answer shown first; length = candidate over baseline."
        ),
    ]
    if report.worth is not None:
        lines += ["", *_worth_lines(report)]
    lines += ["", "where this report can mislead"]
    for caveat in report.caveats:
        lines += _wrap(safe(caveat.text), first="  ! ", rest="    ")
    return "\n".join(lines)


def to_markdown(report: RunReport) -> str:
    """The report for a pull request."""
    head = report.header
    lines = [
        f"### Run `{report.run_id}`{'' if report.sealed else ' (unfinished)'}",
        "",
        (
            f"Rubric `{head['rubric']}` (sha256 `{head['rubric_digest'][:12]}`), judge `{_code(_judge(report))}`, "
            f"{report.overall.n} comparisons, {report.overall.invalid} invalid."
        ),
        "",
        "| | n | win | tie | loss | net win rate (95% interval) | verdict | flips | first place | length |",
        "|---|---:|---:|---:|---:|---|---|---:|---:|---:|",
    ]
    for part in (report.overall, *report.categories):
        cells = [
            _md(part.name),
            str(part.judged),
            _pct(part.win),
            _pct(part.tie),
            _pct(part.loss),
            _net(part),
            part.verdict,
        ]
        cells += [_pct(part.flips), _pct(part.first_place), _ratio(part)]
        lines.append("| " + " | ".join(cells) + " |")
    if report.worth is not None:
        lines += [
            "",
            "**What the judge is worth on this set**",
            "",
            *(f"- {_md(line)}" for line in _worth_facts(report)),
        ]
    lines += ["", "**Where this report can mislead**", "", *(f"- {_md(caveat.text)}" for caveat in report.caveats)]
    return "\n".join(lines)


def to_json(report: RunReport) -> str:
    """The report as one JSON object; every estimate with value, low, high, level, n, clusters and method."""
    return json.dumps({"schema": "judge.report/1", **_plain(report)}, ensure_ascii=False, allow_nan=False)


def to_html(report: RunReport, examples: Sequence[Example] = ()) -> str:
    """The report as one HTML page without scripts or outside resources, in light and dark."""
    import jinja2

    source = resources.files("judge").joinpath("templates/report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(doubt=_DOUBT, pct=_pct, net=_net, ratio=_ratio, safe_text=safe)
    return environment.from_string(source).render(
        report=report,
        parts=(report.overall, *report.categories),
        judge=_judge(report),
        worth=_worth_facts(report) if report.worth else [],
        examples=examples,
        forest=_forest(report),
    )


def comparison_text(result: Comparison) -> str:
    """One comparison for a terminal."""
    if result.invalid is not None:
        return f"invalid ({result.invalid.value}): the judge gave no verdict that can be read"
    first, second = result.verdicts
    assert result.outcome is not None and result.preference is not None and result.confidence is not None
    lines = [
        f"{result.outcome.value.upper()} for the candidate" if result.outcome.value != "tie" else "TIE",
        f"  preference   {result.preference:.3f}  (0.5 is even; from the candidate's side, mean of both orders)",
        f"  first shown  {_odds(first.p_win, first.p_tie, first.p_loss)}",
        f"  second shown {_odds(second.p_win, second.p_tie, second.p_loss)}",
        f"  consistent   {'yes' if result.consistent else 'no: the verdict depends on the order'}",
        f"  confidence   {result.confidence:.3f}  (the judge's own, not calibrated)",
        f"  rubric       {result.rubric}  judge {safe(str(result.judge))}",
    ]
    if result.flags:
        lines.append(f"  flags        {', '.join(result.flags)}")
    if result.rationale:
        lines += _wrap(safe(result.rationale), first="  rationale    ", rest=" " * 15)
    return "\n".join(lines)


def comparison_json(result: Comparison) -> str:
    """One comparison as one JSON object."""
    return json.dumps(_plain(result), ensure_ascii=False, allow_nan=False)


def pick_examples(store: Store, report: RunReport, frame: polars.DataFrame) -> list[Example]:
    """Up to twelve pairs to read: confident verdicts against the label, order flips, invalid ones, then the most
    confident losses.
    """
    rows = frame.to_dicts()
    wrong = [
        row
        for row in rows
        if row["label"] in ("win", "loss") and row["outcome"] in ("win", "loss") and row["label"] != row["outcome"]
    ]
    flips = [row for row in rows if row["consistent"] is False]
    invalid = [row for row in rows if row["invalid"] is not None]
    losses = [row for row in rows if row["outcome"] == "loss"]
    by_confidence = lambda row: -(row["confidence"] or 0.0)  # noqa: E731 - one key for three sorts
    chosen: dict[str, Example] = {}
    for why, found, most in (
        ("against its label", sorted(wrong, key=by_confidence), 4),
        ("other verdict when swapped", flips, 4),
        ("invalid", invalid, 2),
        ("loss", sorted(losses, key=by_confidence), _EXAMPLES),
    ):
        for row in [row for row in found if row["pair_id"] not in chosen][:most]:
            if len(chosen) < _EXAMPLES:
                chosen[row["pair_id"]] = _example(store, report.run_id, row, why)
    return list(chosen.values())


def _example(store: Store, run_id: str, row: dict[str, Any], why: str) -> Example:
    pair = store.pair(run_id, row["pair_id"])
    prompt, candidate, baseline = (_cut(text) for text in (pair.item.prompt, pair.candidate.text, pair.baseline.text))
    outcome = row["outcome"] or f"invalid: {row['invalid']}"
    return Example(
        row["pair_id"],
        row["category"],
        why,
        prompt,
        candidate,
        baseline,
        outcome,
        row["preference"],
        row["label"] or "",
    )


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}\n[cut: {len(text) - _SHOWN:,} more characters]"


def _judge(report: RunReport) -> str:
    judge = report.header["judge"]
    return str(judge["name"]) + (f"[{judge['decoding']}]" if judge["decoding"] else "")


def _rate_row(part: Slice) -> str:
    rates = f"{_pct(part.win):>6} {_pct(part.tie):>6} {_pct(part.loss):>6}"
    net = part.net
    figures = f"{'-':>9}  {'':16}"
    if net is not None:
        figures = f"{100 * net.value:>+9.1f}  [{100 * net.low:+6.1f}, {100 * net.high:+6.1f}]"
    return f"{_name(part):15}{part.judged:>5} {rates} {figures} {part.verdict}"


def _doubt_row(part: Slice) -> str:
    return f"{_name(part):15}{_pct(part.flips):>6} {_pct(part.first_place):>12} {_ratio(part):>7} {part.invalid:>8}"


def _name(part: Slice) -> str:
    name = " ".join(safe(part.name).split())
    return name if len(name) <= 14 else name[:13] + "…"


def _pct(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{100 * estimate.value:.1f}%"


def _net(part: Slice) -> str:
    net = part.net
    return "-" if net is None else f"{100 * net.value:+.1f} pp [{100 * net.low:+.1f}, {100 * net.high:+.1f}]"


def _pp(share: float) -> str:
    return f"{100 * share:+.1f}"


def _ratio(part: Slice) -> str:
    return "-" if part.length_ratio is None else f"{part.length_ratio.value:.2f}x"


def _odds(win: float | None, tie: float | None, loss: float | None) -> str:
    return f"win {win:.3f}  tie {tie:.3f}  loss {loss:.3f}"


def _worth_facts(report: RunReport) -> list[str]:
    worth = report.worth
    assert worth is not None
    verdict = (
        "better than chance and than either length rule"
        if worth.skilled
        else "not shown to be better than chance and the length rules"
    )
    best = sorted(worth.by_category, key=lambda part: -part[1].value)
    leaning = "comparisons with a decisive label (by the side it leans to, also in ties)"
    facts = [
        f"right on {_range(worth.accuracy)} of the {worth.n} {leaning}: {verdict}",
        f"always the longer answer: {_range(worth.longer)}; always the shorter: {_range(worth.shorter)}",
    ]
    able = [f"{name} {estimate.value:.0%}" for name, estimate in best if estimate.low > 0.5]
    blind = [f"{name} {estimate.value:.0%}" for name, estimate in best if estimate.low <= 0.5]
    facts.append(f"by {report.by}, it beats chance in: " + (", ".join(able) or "none"))
    if blind:
        facts.append(f"by {report.by}, it is not shown to in: " + ", ".join(blind))
    return facts


def _range(estimate: Estimate) -> str:
    return f"{estimate.value:.0%} [{estimate.low:.0%}, {estimate.high:.0%}]"


def _worth_lines(report: RunReport) -> list[str]:
    lines = ["what the judge is worth on this set (against the labels in the file)"]
    for fact in _worth_facts(report):
        lines += _wrap(safe(fact), first="  ", rest="    ")
    return lines


def _wrap(text: str, *, first: str = "", rest: str = "") -> list[str]:
    import textwrap

    return textwrap.wrap(
        text, 80, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def _md(text: str) -> str:
    """Text inside Markdown prose or a table cell: no markup, no line break, no HTML."""
    return re.sub(r"([\\`*_\[\]<>|#!~])", r"\\\1", " ".join(safe(text).split()))


def _code(text: str) -> str:
    """Text inside a Markdown code span."""
    return " ".join(safe(text).replace("`", "'").split())


def _forest(report: RunReport) -> list[dict[str, Any]]:
    """Where the marks of the forest plot stand: x in 0..1000 for -100..+100 points, one row per slice."""
    rows: list[dict[str, Any]] = []
    for part in (report.overall, *report.categories):
        if part.net is not None:
            low, value, high = (
                500 + 500 * max(-1.0, min(1.0, x)) for x in (part.net.low, part.net.value, part.net.high)
            )
            rows.append(
                {
                    "name": part.name,
                    "y": 30 * len(rows) + 30,
                    "low": low,
                    "value": value,
                    "high": high,
                    "verdict": part.verdict,
                    "n": part.judged,
                }
            )
    return rows


def _plain(value: Any) -> Any:
    """Dataclasses, enums and tuples as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return None  # an open end of an interval; JSON has no infinity
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
