"""What a gate looks at and asks no model: the default suite, the hacking report, grounding; made, kept, entered."""

from __future__ import annotations

import getpass
import secrets
from typing import TYPE_CHECKING

from ..clock import stamp
from .screen import Ticker

if TYPE_CHECKING:
    from ..archive import Kept
    from ..checks.passes import Material, Pass
    from ..checks.suite import Suite
    from ..grounding.report import GroundingReport
    from ..hacking.report import HackReport
    from ..store import RunInfo, Store

__all__ = ["keep_grounding", "make_hack", "make_missing", "make_pass"]


def make_pass(suite: Suite, material: Material, store: Store, *, seconds: float = 10.0) -> Pass:
    """Make every check of a suite on both answers of every pair, and keep what was found."""
    from ..checks.passes import run_pass
    from ..store import Findings

    ticker = Ticker()
    return run_pass(
        suite,
        material,
        Findings(store.home),
        check_id=f"k-{secrets.token_hex(3)}",
        at=stamp(),
        by=_user(),
        seconds=seconds,
        progress=lambda number, total: ticker.show(
            number, total, lambda: f"checked {number}/{total} pairs", last=False
        ),
    )


def make_hack(store: Store, info: RunInfo, *, rounds: int = 1000, seed: int = 0) -> tuple[HackReport, Kept]:
    """What changed besides quality, kept as ``--json`` prints it."""
    from ..archive import keep
    from ..hacking.report import hack_report
    from ..render.hacking import hack_json, headline

    report = hack_report(store, info, rounds=rounds, seed=seed)
    head = {
        "rubric": report.rubric,
        "judge": report.judge,
        "candidate": report.candidate,
        "baseline": report.baseline,
        "pairs": report.pairs,
        "says": headline(report),
        "sealed": info.sealed,
    }
    return report, keep(store.home, "hack", info.run_id, hack_json(report), at=stamp(), head=head)


def keep_grounding(store: Store, info: RunInfo, report: GroundingReport) -> Kept:
    """Keep what grounding found on a run's answers."""
    from ..archive import keep
    from ..render.grounding import grounding_json, verdict

    head = {
        "pairs": report.pairs,
        "judged": report.judged,
        "coefficients": report.coefficients.name,
        "says": verdict(report),
        "sealed": info.sealed,
    }
    text = grounding_json(report, f"run {info.run_id}")
    return keep(store.home, "ground", info.run_id, text, at=stamp(), head=head)


def make_missing(store: Store, info: RunInfo) -> list[str]:
    """Make for a finished run what no entry of the register is about, and say what was made.

    The suite is ``default``; grounding is for runs in which some item has documents.
    """
    from ..checks.passes import of_run
    from ..checks.suite import load_suite
    from ..grounding.report import ground_pairs, report
    from ..register import Register

    if not info.sealed:
        return []
    known = Register(store.home).entries(subject=info.run_id)
    kinds = {entry.kind for entry in known if entry.body.get("sealed", True)}
    made = []
    if "check" not in kinds:
        done = make_pass(load_suite("default"), of_run(store.journal_path(info.run_id)), store)
        made.append(f"judge check {info.run_id} ({done.check_id})")
    if "hack" not in kinds and store.ids(info.run_id):
        _, kept = make_hack(store, info)
        made.append(f"judge hack {info.run_id} ({kept.entry.id})")
    if "ground" not in kinds:
        found = report(ground_pairs(store.pairs(info.run_id, store.ids(info.run_id))))
        if found.judged:
            made.append(f"judge ground {info.run_id} ({keep_grounding(store, info, found).entry.id})")
    return made


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
