"""A ranking of systems on its surfaces: terminal text, Markdown and JSON, from the same value."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .words import columns, counted, cut, markdown, number, plain, safe, span, wrap

if TYPE_CHECKING:
    from calibration.estimates import Estimate

    from ..ranking import Human, Ranking, System

__all__ = ["rank_json", "rank_markdown", "rank_text"]

_NAME = 23
_TIE = {"davidson": "Davidson nu", "rao_kupper": "Rao-Kupper theta"}


def rank_text(ranking: Ranking) -> str:
    """The terminal table, at most 80 columns wide."""
    lines = [*wrap(safe(_head(ranking))), ""]
    lines.append(
        f"{'rank':7}{'system':{_NAME}}{'rating':>7} {'95% interval':>14}{'win':>7}{'tie':>7}{'n':>6}{'prompts':>8}"
    )
    for system in ranking.systems:
        name = cut(system.name, _NAME - 1)
        cells = _cells(system)
        lines.append(
            f"{cells[0]:7}{name}{' ' * (_NAME - columns(name))}{cells[1]:>7} {cells[2]:>14}{cells[3]:>7}{cells[4]:>7}"
            f"{system.comparisons:>6}{system.prompts:>8}"
        )
    lines += ["", *wrap(_legend(ranking))]
    if ranking.human is not None:
        lines += ["", "by people", *(line for fact in _human(ranking, ranking.human) for line in _fact(fact))]
    lines += ["", *(line for note in ranking.notes for line in wrap(safe(note), first="  ! ", rest="    "))]
    return "\n".join(lines)


def rank_markdown(ranking: Ranking) -> str:
    """The table for a pull request."""
    lines = [f"### {markdown(_head(ranking))}", ""]
    lines += ["| rank | system | rating | 95% interval | win | tie | n | prompts |", "|---|---|" + "---:|" * 6]
    for system in ranking.systems:
        rank, *rest = _cells(system)
        cells = [rank, markdown(system.name), *rest, str(system.comparisons), str(system.prompts)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", markdown(_legend(ranking))]
    if ranking.human is not None:
        lines += ["", "**By people**", "", *(f"- {markdown(fact)}" for fact in _human(ranking, ranking.human))]
    return "\n".join([*lines, "", *(f"- {markdown(note)}" for note in ranking.notes)])


def rank_json(ranking: Ranking) -> str:
    """One JSON object: both intervals of every rating; an end without limit is null, the baseline's is ``fixed``."""
    return json.dumps({"schema": "judge.rank/1", **plain(ranking)}, ensure_ascii=False, allow_nan=False)


def _head(ranking: Ranking) -> str:
    first = ranking.runs[0]
    runs = first.run_id if len(ranking.runs) == 1 else counted(len(ranking.runs), "run")
    rubrics, judges = ({getattr(run, name) for run in ranking.runs} for name in ("rubric", "judge"))
    rubric = first.rubric if len(rubrics) == 1 else f"{len(rubrics)} rubrics"
    judge = f"judge {first.judge}" if len(judges) == 1 else f"{len(judges)} judges"
    return f"{counted(len(ranking.systems), 'system')} by {runs}, {rubric}, {judge}"


def _cells(system: System) -> tuple[str, str, str, str, str]:
    rank = str(system.rank_low) if system.rank_low == system.rank_high else f"{system.rank_low}-{system.rank_high}"
    if system.against is None:
        return rank, "1000", _interval(system.rating), "-", "-"
    win, tie, _ = system.against
    return rank, f"{system.rating.value:.0f}", _interval(system.rating), number(win, "share"), number(tie, "share")


def _interval(rating: Estimate) -> str:
    """Elo points without decimals; ``fixed`` for the baseline; an end that the data do not limit is a dash."""
    if rating.method == "fixed":
        return "fixed"
    ends = ["-" if abs(end) == float("inf") else f"{end:.0f}" for end in (rating.low, rating.high)]
    return f"[{', '.join(ends)}]"


def _legend(ranking: Ranking) -> str:
    tie = "no comparison was a tie"
    if ranking.tie is not None:
        tie = f"{_TIE[ranking.model]} {number(ranking.tie.value)} {span(ranking.tie)}"
    return (
        f"rating = Elo points ({counted(ranking.comparisons, 'comparison')}, {counted(ranking.prompts, 'prompt')}), "
        f"{safe(ranking.baseline)} = 1000; intervals and ranks from drawing whole prompts; a dash is an end without "
        f"limit. win, tie = modelled chances against {safe(ranking.baseline)}. {tie}. "
        f"{counted(ranking.invalid, 'comparison')} invalid."
    )


def _human(ranking: Ranking, human: Human) -> list[str]:
    facts = []
    if human.reason:
        facts.append(f"no ratings: {human.reason}")
    judged = {system.name: system.rating.value for system in ranking.systems}
    for name, estimate in human.ratings.items():
        facts.append(f"{name}: {estimate.value:.0f} {_interval(estimate)}; by the judge {judged[name]:.0f}")
    facts.append(
        f"{counted(human.labels, 'label')} with a majority on {counted(human.prompts, 'prompt')}, {human.no_majority} "
        f"without one; gold {human.gold[:12]}; how the labelled pairs were drawn is not taken into account"
    )
    if human.left_out:
        facts.append(f"{counted(human.left_out, 'label')} left out: about other pairs, other answers or another rubric")
    return facts


def _fact(fact: str) -> list[str]:
    return wrap(safe(fact), first="  ", rest="    ")
