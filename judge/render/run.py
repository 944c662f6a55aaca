"""The run report on its surfaces: terminal text, Markdown, JSON and a self-contained HTML page.

All take the same ``RunReport`` and print the same numbers. Model text is hostile: control characters never reach a
terminal, and the HTML escapes every value, loads nothing and runs no script.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..types import Comparison
from .charts import NET, PAPER, forest
from .costs import cost_facts, cost_table
from .document import Chart
from .hacking import hack_values
from .page import page
from .words import counted, markdown, markdown_code, plain, safe, wrap

if TYPE_CHECKING:
    import polars

    from calibration.estimates import Estimate

    from ..hacking.report import HackReport
    from ..store import Store
    from ..summary import RunReport, Slice

__all__ = [
    "Example",
    "comparison_json",
    "comparison_text",
    "forest_chart",
    "pick_examples",
    "to_html",
    "to_json",
    "to_markdown",
    "to_text",
]

_SHOWN = 2_000
_DOUBT = "This is what the judge says, and this judge cannot be trusted with a decision: see below how far it can be."
_INTERVALS = (
    "intervals are clustered by prompt, those of the categories widened so that all hold at once (Bonferroni); better "
    "and worse go by them"
)
_EXAMPLES = 12


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
    if report.canaries.void:
        lines += [*wrap(safe(report.canaries.text)), ""]
    lines.append(f"{'':12}{'judged':>8} {'win':>6} {'tie':>6} {'loss':>6} {'net':>9}  95% interval")
    lines += [_rate_row(part) for part in (report.overall, *report.categories)]
    if report.overall.invalid:
        low, high = report.overall.net_bounds
        lines += wrap(
            f"with the {report.overall.invalid} invalid as losses or wins, all: net {_pp(low)} to {_pp(high)}"
        )
    if not report.believable:
        lines += ["", *wrap(_DOUBT)]
    lines += ["", f"{'':15}{'flips':>6} {'first place':>12} {'length':>7} {'invalid':>8}"]
    lines += [_doubt_row(part) for part in (report.overall, *report.categories)]
    lines += [
        "",
        *wrap(
            f"net = wins minus losses, in points, from the candidate's side; {_INTERVALS}. flips = "
            "other verdict after swapping; first place = decisive verdicts for the answer shown first; length = "
            "characters of the candidate's answer over the baseline's, in the typical pair (geometric mean). The gate "
            "and the calibration take the mean preference instead, in which a sure verdict counts for more than a "
            "doubtful one: it may differ a little."
        ),
    ]
    if report.worth is not None:
        lines += ["", *_worth_lines(report)]
    if costs := cost_table(report):
        lines += ["", f"{'':24}{'cost':>12} {'a verdict':>12}"]
        lines += [f"{safe(name)[:23]:24}{whole:>12} {each:>12}".rstrip() for name, whole, each in costs]
        for fact in cost_facts(report):
            lines += wrap(fact)
    if report.canaries.state == "passed" and not report.canaries.failed:
        lines += ["", *wrap(report.canaries.text)]
    lines += ["", "where this report can mislead"]
    for caveat in report.caveats:
        lines += wrap(safe(caveat.text), first="  ! ", rest="    ")
    return "\n".join(lines)


def to_markdown(report: RunReport) -> str:
    """The report for a pull request."""
    head = report.header
    lines = [
        f"### Run `{report.run_id}`{'' if report.sealed else ' (unfinished)'}",
        "",
        *([f"**{markdown(report.canaries.text)}**", ""] if report.canaries.void else []),
        (
            f"Rubric `{head['rubric']}` (sha256 `{head['rubric_digest'][:12]}`), "
            f"judge `{markdown_code(_judge(report))}`, {counted(report.overall.n, 'comparison')}, "
            f"{report.overall.invalid} invalid."
        ),
        "",
        "| | n | win | tie | loss | net win rate (interval) | verdict | flips | first place | length ratio |",
        "|---|---:|---:|---:|---:|---|---|---:|---:|---:|",
    ]
    for part in (report.overall, *report.categories):
        cells = [
            markdown(part.name),
            str(part.judged),
            _pct(part.win),
            _pct(part.tie),
            _pct(part.loss),
            _net(part),
            part.verdict,
        ]
        cells += [_pct(part.flips), _pct(part.first_place), _ratio(part)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"Net win rate = wins minus losses, in percentage points, at 95%; {_INTERVALS}."]
    if report.worth is not None:
        lines += [
            "",
            "**What the judge is worth on this set**",
            "",
            *(f"- {markdown(line)}" for line in _worth_facts(report)),
        ]
    if costs := cost_table(report):
        lines += ["", "| | cost | a verdict |", "|---|---:|---:|"]
        lines += [f"| {markdown(name)} | {whole} | {each} |" for name, whole, each in costs]
        lines += ["", *cost_facts(report)]
    if report.canaries.state == "passed" and not report.canaries.failed:
        lines += ["", markdown(report.canaries.text)]
    lines += ["", "**Where this report can mislead**", "", *(f"- {markdown(caveat.text)}" for caveat in report.caveats)]
    return "\n".join(lines)


def to_json(report: RunReport) -> str:
    """The report as one JSON object; every estimate with value, low, high, level, n, clusters and method."""
    return json.dumps({"schema": "judge.report/1", **plain(report)}, ensure_ascii=False, allow_nan=False)


def to_html(
    report: RunReport, examples: Sequence[Example] = (), *, hack: HackReport | None = None, home: str = ""
) -> str:
    """The report as one HTML page without scripts or outside resources, in light and dark.

    ``hack`` adds what changed in the answers besides quality, with pairs to read; ``home`` is the folder of the run.
    """
    parts = (report.overall, *report.categories)
    return page(
        "report.html.j2",
        report=report,
        home=home,
        parts=parts,
        judge=_judge(report),
        worth=_worth_facts(report) if report.worth else [],
        costs=cost_table(report),
        cost_facts=cost_facts(report),
        examples=examples,
        forest=forest_chart(report).svg,
        doubt=_DOUBT,
        intervals=_INTERVALS,
        hack=None if hack is None else hack_values(hack),
        pct=_pct,
        net=_net,
        ratio=_ratio,
    )


def forest_chart(report: RunReport) -> Chart:
    """The net win rate of the whole run and of each category, the whole first; also in the table below it."""
    rows = [
        {"segment": part.name, "kind": "judge", "value": part.net.value, "low": part.net.low, "high": part.net.high,
         "verdict": part.verdict, "n": part.judged}
        for part in (report.overall, *report.categories)
        if part.net
    ]  # fmt: skip
    title = f"Net win rate with its interval by {report.by}, also in the table below"
    return Chart("net", title, forest(rows, PAPER, title=NET))


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
        *(
            [f"  calibrated   {result.calibrated:.3f}  (how often people side with this judgement)"]
            if result.calibrated is not None
            else []
        ),
        f"  rubric       {result.rubric}  judge {safe(str(result.judge))}",
    ]
    if result.flags:
        lines.append(f"  flags        {', '.join(result.flags)}")
    if result.rationale:
        lines += wrap(safe(result.rationale), first="  rationale    ", rest=" " * 15)
    return "\n".join(lines)


def comparison_json(result: Comparison) -> str:
    """One comparison as one JSON object."""
    return json.dumps(plain(result), ensure_ascii=False, allow_nan=False)


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
        lines += wrap(safe(fact), first="  ", rest="    ")
    return lines
