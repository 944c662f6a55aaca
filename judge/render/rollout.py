"""A rollout and what is proposed for it, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .words import safe, wrap

if TYPE_CHECKING:
    from ..register import Entry
    from ..rollout import Rollout
    from ..watching import Proposal, Watched

__all__ = ["event_text", "proposal_text", "rollout_text", "served_text"]

_WIDTH = 80


def rollout_text(rollout: Rollout) -> str:
    """Where a rollout stands, and what is served."""
    served = served_text(rollout)
    lines = [
        f"{rollout.id}  {rollout.state}  since {rollout.since}",
        *wrap(f"flag {rollout.flag}: {served}", first="  ", rest="    ", width=_WIDTH),
        *wrap(
            f"from {rollout.licence}, run {rollout.run}, policy {rollout.policy}", first="  ", rest="    ", width=_WIDTH
        ),
    ]
    if rollout.adapter:
        told = f"adapter {rollout.adapter['path']} (sha256 {rollout.adapter['digest'][:12]}), kept unmerged"
        lines += wrap(told, first="  ", rest="    ", width=_WIDTH)
    return safe("\n".join(lines))


def served_text(rollout: Rollout) -> str:
    """Who answers what at the present stage of a rollout."""
    if not rollout.active:
        return f"{rollout.baseline} answers all"
    who = f"risk {', '.join(rollout.only)} only" if rollout.only else "all risks"
    return {
        "shadow": f"{rollout.baseline} answers all; {rollout.candidate} answers beside, unseen",
        "100%": f"{rollout.candidate} answers all",
    }.get(rollout.state, f"{rollout.candidate} answers {rollout.share:.0%} ({who}), {rollout.baseline} the rest")


def proposal_text(proposal: Proposal) -> str:
    """What is proposed, with one line a guard: extra harm, bounds that hold at every look, margin."""
    lines = wrap(f"{proposal.move.upper()}: {proposal.why}", width=_WIDTH)
    told = f"{proposal.candidates} units of the candidate, {proposal.baselines} of the baseline at {proposal.stage}"
    told += f"; {proposal.repeated} repeated keys counted once" if proposal.repeated else ""
    told += f"; {proposal.left_out} lines of other stages or not eligible" if proposal.left_out else ""
    lines += wrap(told, first="  ", rest="  ", width=_WIDTH)
    for guard in proposal.guards:
        lines += wrap(guard.why, first=f"  {guard.move:11} {guard.metric}: ", rest=" " * 14, width=_WIDTH)
        if guard.estimate is not None:
            lines += wrap(_extra(guard), first=" " * 14, rest=" " * 14, width=_WIDTH)
    return safe("\n".join(lines))


def _extra(guard: Watched) -> str:
    """How much more harm, and what its two ends are held to."""
    found = guard.estimate
    assert found is not None  # asked for a guard that has a value
    value, low, high = (100 * end for end in (found.value, found.low, found.high))
    return (
        f"{value:+.2f} points more than the baseline, between {low:+.2f} and {high:+.2f} ({found.n} blocks). Passes "
        f"once the upper end is below {100 * guard.passing:+.1f}; taken back once the lower end is above "
        f"{100 * guard.margin:+.1f}"
    )


def event_text(entry: Entry) -> str:
    """One event as a line."""
    body = entry.body
    by = f"by {entry.by}" if entry.by else ""
    second = f", agreed by {body['second']}" if body.get("second") else ""
    told = (
        f"{entry.at[:19]}  {entry.id:18}  {body['event']:8} -> {body['to']:11}  {by}{second}  {body.get('reason', '')}"
    )
    return safe(told.rstrip())
