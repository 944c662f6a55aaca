"""Panels and cascades on their surfaces: terminal text, Markdown and JSON, from the same values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..advice import advised
from .run import to_markdown, to_text
from .words import counted, markdown, number, plain, safe, span, wrap

if TYPE_CHECKING:
    from calibration.estimates import Estimate

    from ..cascades import CascadeReport, Stage
    from ..panels import Agreement, Joint, Member, PanelReport, Weighing

__all__ = ["cascade_json", "cascade_markdown", "cascade_text", "panel_json", "panel_markdown", "panel_text"]

_LISTED = 12
_RULES = {
    "vote": "the verdict that most judges gave; a tie where two are level",
    "gold": "preferences weighted by how often each judge is right on the labels",
}


def panel_text(report: PanelReport) -> str:
    """The terminal report, at most 80 columns wide."""
    name = report.panel_id + ("" if report.sealed else "  UNFINISHED")
    sizes = f"{counted(len(report.members), 'judge')}, {counted(report.pairs, 'pair')}"
    lines = [f"panel {name}  {report.rubric}  {sizes}", ""]
    for member in report.members:
        lines += wrap(f"{member.judge}  ({member.run_id or 'not begun'})", first=f"  {member.place}  ", rest="     ")
    lines += ["", f"{'':6}{'judged':>6}{'win':>7}{'tie':>7}{'loss':>7}{'net':>8} {'95% interval':>16}{'flips':>7}"]
    lines[-1] += f"{'inv.':>5}{'cost':>9}"
    for row in _rows(report):
        lines.append(f"{row[0]:6}{row[1]:>6}{row[2]:>7}{row[3]:>7}{row[4]:>7}{row[5]:>8} {row[6]:>16}{row[7]:>7}")
        lines[-1] = f"{lines[-1]}{row[8]:>5}{row[9]:>9}"
    lines += ["", *_rules(report)]
    for title, facts in _sections(report):
        lines += ["", title, *(line for fact in facts for line in wrap(safe(fact), first="  ", rest="    "))]
    for text in (*report.warnings, *report.notes):
        mark = "WARNING: " if text in report.warnings else "note: "
        lines += wrap(safe(mark + text), first="  ! ", rest="    ")
    return "\n".join(lines)


def panel_markdown(report: PanelReport) -> str:
    """The report for a pull request."""
    lines = [f"### Panel `{report.panel_id}`{'' if report.sealed else ' (unfinished)'}", ""]
    sizes = f"{counted(len(report.members), 'judge')}, {counted(report.pairs, 'pair')}"
    lines += [f"Rubric `{report.rubric}`, {sizes}.", ""]
    lines += [f"- judge {member.place}: {markdown(member.judge)} ({member.run_id or 'not begun'})"
              for member in report.members]  # fmt: skip
    lines += ["", "| | n | win | tie | loss | net (points) | 95% interval | flips | invalid | cost |"]
    lines += ["|---|" + "---:|" * 9, *("| " + " | ".join(row) + " |" for row in _rows(report))]
    lines += ["", *(f"`{line.strip()}`  " for line in _rules(report))]
    for title, facts in _sections(report):
        lines += ["", f"**{title}**", "", *(f"- {markdown(fact)}" for fact in facts)]
    lines += ["", *(f"- **WARNING** {markdown(text)}" for text in report.warnings)]
    return "\n".join([*lines, *(f"- {markdown(text)}" for text in report.notes)])


def panel_json(report: PanelReport) -> str:
    """One JSON object; every estimate with value, low, high, level, n, clusters and method."""
    value = {"schema": "judge.panel/1", "sealed": report.sealed, **plain(report)}
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def cascade_text(report: CascadeReport) -> str:
    """The terminal report: who decided how many at what cost, then the figures over all pairs."""
    name = report.cascade_id + ("" if report.sealed else "  UNFINISHED")
    sizes = f"{counted(len(report.stages), 'judge')}, {counted(report.pairs, 'pair')}"
    lines = [f"cascade {name}  {sizes}", ""]
    for stage in report.stages:
        lines += wrap(f"{stage.judge}  ({stage.run_id or 'no run'})", first=f"  {stage.place}  ", rest="     ")
    lines += ["", f"{'':6}{'reached':>8}{'decided':>9}{'passed on':>11}{'invalid':>9}{'cost':>11}  decides alone"]
    for stage in report.stages:
        counts = f"{stage.reached:>8}{stage.decided:>9}{stage.passed_on:>11}{stage.invalid:>9}{_money(stage.cost):>11}"
        lines.append(f"{stage.place:<6}{counts}  {_gate(stage)}")
    for title, facts in _cascade_sections(report):
        lines += ["", title, *(line for fact in facts for line in wrap(safe(fact), first="  ", rest="    "))]
    return "\n".join([*lines, "", "each pair by the last judge that saw it", "", to_text(report.report)])


def cascade_markdown(report: CascadeReport) -> str:
    """The report for a pull request."""
    lines = [f"### Cascade `{report.cascade_id}`{'' if report.sealed else ' (unfinished)'}", ""]
    lines += ["| | judge | reached | decided | passed on | invalid | cost | decides alone |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|---|"]
    for stage in report.stages:
        counts = (stage.reached, stage.decided, stage.passed_on, stage.invalid, _money(stage.cost), _gate(stage))
        lines.append(f"| {stage.place} | {markdown(stage.judge)} | " + " | ".join(map(str, counts)) + " |")
    for title, facts in _cascade_sections(report):
        lines += ["", f"**{title}**", "", *(f"- {markdown(fact)}" for fact in facts)]
    return "\n".join([*lines, "", to_markdown(report.report)])


def cascade_json(report: CascadeReport) -> str:
    """One JSON object; ``report`` in it is that of all pairs, in the form of ``judge.report/1``."""
    value = {"schema": "judge.cascade/1", "sealed": report.sealed, **plain(report)}
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _rows(report: PanelReport) -> list[tuple[str, ...]]:
    rows = [_member_row(member) for member in report.members]
    rows.append(_row("vote", report.majority, "-", _money(report.cost)))
    if report.weighing is not None:
        rows.append(_row("gold", report.weighing.joint, "-", "-"))
    return rows


def _member_row(member: Member) -> tuple[str, ...]:
    if member.report is None:
        return (str(member.place), "0", *("-" * 7), _money(member.cost))
    part = member.report.overall
    rates = [_pct(rate) for rate in (part.win, part.tie, part.loss)]
    return (str(member.place), str(part.judged), *rates, *_net(part.net), _pct(part.flips), str(part.invalid),
            _money(member.cost))  # fmt: skip


def _row(name: str, joint: Joint, flips: str, cost: str) -> tuple[str, ...]:
    rates = [_pct(rate) for rate in (joint.win, joint.tie, joint.loss)]
    return (name, str(joint.judged), *rates, *_net(joint.net), flips, str(joint.invalid), cost)


def _rules(report: PanelReport) -> list[str]:
    named = [name for name in _RULES if name == "vote" or report.weighing is not None]
    return [line for name in named for line in wrap(f"{name} = {_RULES[name]}", rest="       ")]


def _sections(report: PanelReport) -> list[tuple[str, list[str]]]:
    found = [("how far they agree", [_agreement(entry) for entry in report.agreements])] if report.agreements else []
    if report.weighing is not None:
        gold = f"gold {report.weighing.gold[:12]}"
        title = f"against {report.weighing.labels} labels, by the side that each leans to ({gold})"
        found.append((title, _weighing(report.weighing)))
    return found


def _agreement(entry: Agreement) -> str:
    if entry.share is None:
        return f"{entry.first} and {entry.second}: no pair with a verdict of both"
    kappa = "undefined" if entry.kappa is None else f"{number(entry.kappa.value)} {span(entry.kappa)}"
    errors = "" if entry.errors is None else f"; their errors correlate {number(entry.errors, 'signed')}"
    share = f"{number(entry.share.value, 'share')} {span(entry.share, 'share')}"
    return f"{entry.first} and {entry.second}: same verdict on {share}, kappa {kappa} (n {entry.n}){errors}"


def _weighing(found: Weighing) -> list[str]:
    panel = found.panel
    facts = []
    for member in panel.members:
        invalid = f", {member.invalid} invalid" if member.invalid else ""
        facts.append(f"{member.name}: right on {_with_n(member.accuracy)}, weight {number(member.weight)}{invalid}")
    facts.append(f"{len(panel.members)} judges amount to {panel.effective:.1f} independent ones")
    facts.append(f"plain majority: right on {_with_n(found.majority)}")
    facts.append(
        f"weighted, on held-out prompts: right on {_with_n(panel.accuracy)}; the best judge, chosen on the same "
        f"prompts as the weights: {_with_n(panel.best_accuracy)}; difference {number(panel.gain.value, 'points')} "
        f"{span(panel.gain, 'points')}"
    )
    if found.left_out:
        facts.append("left out: " + ", ".join(f"{count} {why}" for why, count in found.left_out.items()))
    return facts


def _cascade_sections(report: CascadeReport) -> list[tuple[str, list[str]]]:
    cost = [f"this cascade: {_money(report.cost)}, with its canary pairs and with finding out how a judge can answer"]
    if report.all_last is not None:
        last = report.stages[-1]
        cost.append(
            f"judge {last.place} for all {report.pairs} pairs: about {_money(report.all_last)} without these, at the "
            f"mean cost of the {last.reached} that it judged"
        )
    else:
        cost.append(f"judge {report.stages[-1].place} for all {report.pairs} pairs: unknown")
    found = [("what is promised", _promises(report)), ("cost", cost)]
    return [*found, ("for people", _people(report))] if report.sealed else found


def _promises(report: CascadeReport) -> list[str]:
    facts = []
    for stage in report.stages:
        if stage.gate is not None and stage.reached:
            gate = stage.gate
            facts.append(
                f"judge {stage.place}, where it decides alone ({counted(stage.decided - stage.identical, 'pair')}): at "
                f"most {number(gate.rate, 'share')} go against people, with 90% confidence; certified on gold "
                f"{gate.gold[:12]}, {gate.prompts} prompts, {gate.labels} labels"
            )
            if stage.place > 1:
                facts.append(
                    f"that holds for the pairs which reach judge {stage.place} only if its labels were drawn among "
                    "such pairs: they are harder than the others"
                )
    if report.certificates > 1:
        facts.append(f"all {report.certificates} hold together with at least {report.together:.0%} confidence")
    facts.append("it is assumed that those labels were drawn at random from pairs like these")
    identical = sum(stage.identical for stage in report.stages[:1])
    if identical:
        facts.append(f"{counted(identical, 'pair has', 'pairs have')} identical answers: no judge is needed for a tie")
    if report.stages[-1].gate is None and report.stages[-1].reached:
        facts.append(f"nothing certifies judge {report.stages[-1].place}: its verdicts stand without a promise")
    return facts


def _people(report: CascadeReport) -> list[str]:
    if not report.people:
        return ["none: every pair was decided"]
    shown = ", ".join(report.people[:_LISTED])
    rest = f" and {len(report.people) - _LISTED} more" if len(report.people) > _LISTED else ""
    undecided = counted(len(report.people), "pair")
    return [f"{undecided} that no judge decided with certainty: {shown}{rest}", label_command(report)]


def label_command(report: CascadeReport) -> str:
    """The command that puts exactly these pairs before people (and a random part of the others of the last stage)."""
    last = [stage for stage in report.stages if stage.reached][-1]
    if len(report.people) == last.reached:
        return advised("label", last.run_id, "--draw", "all", "--to", "labels.jsonl", "--as", "YOU")
    below = ("--below", repr(last.gate.threshold)) if last.gate is not None else ()
    return advised("label", last.run_id, "--draw", "escalated", *below, "--to", "labels.jsonl", "--as", "YOU")


def _gate(stage: Stage) -> str:
    return "always" if stage.gate is None else f"from confidence {stage.gate.threshold:.3f}"


def _pct(estimate: Estimate | None) -> str:
    return "-" if estimate is None else number(estimate.value, "share")


def _net(estimate: Estimate | None) -> Sequence[str]:
    if estimate is None:
        return ("-", "-")
    return (f"{100 * estimate.value:+.1f}", f"[{100 * estimate.low:+6.1f}, {100 * estimate.high:+6.1f}]")


def _with_n(estimate: Estimate | None) -> str:
    if estimate is None:
        return "none"
    return f"{number(estimate.value, 'share')} {span(estimate, 'share')} (n {estimate.n})"


def _money(cost: float | None) -> str:
    if cost is None:
        return "unknown"
    return f"${cost:.2f}" if cost >= 100 or cost == 0 else f"${cost:.4f}"
