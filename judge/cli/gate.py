"""``judge gate``: may this candidate ship? One decision for the terminal, JSON, Markdown, JUnit, HTML and exit code."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..advice import advised
from ..clock import stamp
from ..environment import environment
from ..render.words import wrap
from ..writing import write_whole
from .making import make_missing
from .screen import bring_in, home_option, safe

if TYPE_CHECKING:
    from ..decision import Decision
    from ..dossier import Asked
    from ..policy import Policy
    from ..register import Entry
    from ..store import RunInfo, Store

__all__ = ["command", "conclude"]


class _Gate(click.Group):
    """A group whose first word may be left away: ``judge gate RUN`` decides."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = ["decide", *(args or ["--help"])]
        return super().parse_args(ctx, args)


@click.group("gate", cls=_Gate)
def command() -> None:
    """Decide on a run, override a decision, show one again, print a policy."""


@command.command(
    "decide",
    epilog="Example: judge gate r-1a2b3c --policy strict --gold labels.jsonl --html gate.html   "
    "More: judge gate override|show|policy --help",
)
@click.argument("run_id", metavar="RUN")
@click.option("--policy", "-p", default="default", show_default=True, help="default, strict, or a YAML file.")
@click.option(
    "--gold", "-g", multiple=True, type=click.Path(dir_okay=False, path_type=Path),
    help="Human labels of this run's pairs; may be repeated. Default: the eval set's own.",
)  # fmt: skip
@click.option("--checks", multiple=True, metavar="ID", help="A check run (default: the newest about RUN).")
@click.option("--hack", "hacks", multiple=True, metavar="ID", help="A hacking report (default: the newest about RUN).")
@click.option(
    "--calibration", type=click.Path(dir_okay=False, path_type=Path),
    help="A calibration file; refused where it was fitted for another rubric or judge.",
)  # fmt: skip
@click.option("--since", metavar="RUN", help="An earlier run of the same pairs: has the judge moved?")
@click.option("--by", default="", metavar="NAME", help="Who asks; kept in the record.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of the bootstrap.")
@click.option("--md", "--markdown", "as_md", is_flag=True, help="Markdown, for a pull request.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Also write JUnit XML here.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Also write one HTML page here.")
@click.option("--as-it-is", is_flag=True, help="Make nothing: what is missing stays missing.")
@click.option("--dry-run", is_flag=True, help="Decide on what is there; make and record nothing.")
@home_option
def decide_(**options: Any) -> int:
    """Hold RUN against a policy: SHIP, HOLD or BLOCK, with what stands in the way and what would change it.

    Exit code: 0 SHIP, 1 BLOCK, 3 the run gives no verdict (not sealed, void), 4 HOLD. What is missing, stale or unclear
    is never a pass. The decision is recorded in the register.

    What asks no model and was not made yet is made first: the default suite, the hacking report and, where items have
    documents, grounding (--as-it-is leaves it). Labels and probes of the judge are yours to bring.
    """
    return _decide(Options(**options))


@dataclass(frozen=True, slots=True)
class Options:
    """What the command was given."""

    run_id: str
    policy: str
    gold: tuple[Path, ...]
    checks: tuple[str, ...]
    hacks: tuple[str, ...]
    calibration: Path | None
    since: str | None
    by: str
    seed: int
    as_md: bool
    as_json: bool
    junit: Path | None
    html: Path | None
    as_it_is: bool
    dry_run: bool
    home: str | None


def _decide(options: Options) -> int:
    from calibration.gold import GoldSet, combine

    from ..calibrations import read_calibration
    from ..dossier import Asked, require_asked
    from ..policy import load_policy
    from ..store import Store

    if options.as_md and options.as_json:
        raise click.UsageError("--md and --json both want stdout; give one of them")
    _writable(options.junit, options.html)
    policy = load_policy(options.policy)
    store = Store(Path(options.home) if options.home else environment().home)
    bring_in(store)
    info = store.run(options.run_id)
    asked = Asked(
        gold=combine([GoldSet.read(path) for path in options.gold]) if options.gold else None,
        gold_files=tuple(str(path.resolve()) for path in options.gold),
        checks=options.checks,
        hacks=options.hacks,
        calibration=None if options.calibration is None else read_calibration(options.calibration),
        since=None if options.since is None else store.run(options.since),
        seed=options.seed,
    )
    require_asked(store, info, asked)  # before anything is made and entered for it
    if not (options.as_it_is or options.dry_run):
        for made in make_missing(store, info):
            click.echo(f"made: {made}", err=True)
    decision, name = conclude(store, info, policy, asked, by=options.by, record=not options.dry_run)
    _show(decision, name, options)
    return decision.exit_code


def conclude(
    store: Store, info: RunInfo, policy: Policy, asked: Asked, *, by: str = "", record: bool = True
) -> tuple[Decision, str]:
    """Decide on a run and record it; the decision, and the name of its entry in the register."""
    from ..dossier import gather
    from ..gate import decide
    from ..register import Register

    now = datetime.now(UTC)
    decision = decide(policy, gather(store, info, policy, asked, now=now))
    if not record:
        return decision, ""
    body = {**decision.to_dict(), "policy_text": policy.text}
    body |= {"gold_files": list(asked.gold_files)} if asked.gold_files else {}
    at = stamp(now)
    return decision, Register(store.home).append("decision", info.run_id, body, at=at, by=by).id


def _show(decision: Decision, name: str, options: Options) -> None:
    from ..render import gate as render

    if options.junit is not None:
        write_whole(options.junit, render.to_junit(decision) + "\n")
        click.echo(f"wrote {safe(str(options.junit))}", err=True)
    if options.html is not None:
        write_whole(options.html, render.to_html(decision, name=name))
        click.echo(f"wrote {safe(str(options.html))}", err=True)
    if options.as_json:
        click.echo(render.to_json(decision, name=name))
    elif options.as_md:
        click.echo(render.to_markdown(decision, name=name))
    else:
        click.echo(render.to_text(decision, _width(), name=name))
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(render.to_markdown(decision, name=name) + "\n")
    if os.environ.get("GITHUB_ACTIONS") and decision.exit_code:
        said = safe(" ".join(decision.headline.split())).replace("%", "%25")
        click.echo(f"::error title=judge gate::{said}", err=True)


@command.command("override", epilog="Example: judge gate override decision-1f0c --reason '...' --by ada --second ben")
@click.argument("decision")
@click.option("--reason", required=True, help="Why, in a sentence; kept for good.")
@click.option("--by", required=True, metavar="NAME", help="Who overrides.")
@click.option("--second", required=True, metavar="NAME", help="Who agrees: another person.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@home_option
def override_(*, decision: str, reason: str, by: str, second: str, as_json: bool, home: str | None) -> int:
    """Let a candidate through that DECISION holds or blocks: two people, a reason, an entry that stays.

    The decision is not changed. A rollout may then start from the override.
    """
    from ..overrides import override
    from ..register import Register
    from ..render.words import plain

    register = Register(Path(home) if home else environment().home)
    now = stamp()
    entry = override(register, decision, reason=reason, people=(by, second), at=now)
    if as_json:
        import json

        click.echo(json.dumps({**plain(entry), "id": entry.id}))
        return 0
    body = entry.body
    click.echo(f"{entry.id}: {safe(str(body['word']))} of {safe(str(body['decision']))} overridden by {safe(by)}, "
               f"agreed by {safe(second)}")  # fmt: skip
    click.echo(f"next: {advised('rollout', 'start', entry.id)}", err=True)
    return 0


@command.command("show", epilog="Example: judge gate show decision-1f0c --md")
@click.argument("decision", default="latest")
@click.option("--list", "list_all", is_flag=True, help="List all decisions, newest first.")
@click.option("--md", "--markdown", "as_md", is_flag=True, help="Markdown, for a pull request.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object (with --list: a list).")
@click.option("--junit", "as_junit", is_flag=True, help="JUnit XML.")
@home_option
def show_(*, decision: str, list_all: bool, as_md: bool, as_json: bool, as_junit: bool, home: str | None) -> int:
    """Show a recorded DECISION again (default: the latest), or list them. Always exit code 0."""
    from ..decision import Decision
    from ..overrides import decision_entry, decisions
    from ..register import Register
    from ..render import gate as render

    register = Register(Path(home) if home else environment().home)
    if list_all:
        return _list(decisions(register), as_json=as_json)
    entry = decision_entry(register, decision)
    found = Decision.from_dict(entry.body)
    if as_json:
        click.echo(render.to_json(found, name=entry.id))
    elif as_junit:
        click.echo(render.to_junit(found))
    else:
        click.echo(
            render.to_markdown(found, name=entry.id) if as_md else render.to_text(found, _width(), name=entry.id)
        )
    return 0


def _list(entries: list[Entry], *, as_json: bool) -> int:
    import json

    rows = [
        {"id": entry.id, "at": entry.at, "run": entry.subject, "word": entry.body["word"],
         "policy": entry.body["policy"], "candidate": entry.body["candidate"], "by": entry.by}
        for entry in reversed(entries)
    ]  # fmt: skip
    if as_json:
        click.echo(json.dumps(rows))
        return 0
    if not rows:
        click.echo(f"no decision was recorded here; make one with: {advised('gate', 'RUN')}", err=True)
    for row in rows:
        told = f"{row['id']:17} {row['at'][:16].replace('T', ' ')}  {row['word']:5} {row['run']:10} {row['policy']}"
        click.echo(safe(told))
        for line in wrap(safe(str(row["candidate"])), first="  ", rest="    "):
            click.echo(line)
    return 0


@command.command("policy", epilog="Example: judge gate policy default > mine.yaml")
@click.argument("name", default="default")
@click.option("--list", "list_all", is_flag=True, help="List the shipped policies.")
def policy_(*, name: str, list_all: bool) -> int:
    """Print a policy as it stands, to start your own from; give yours another name."""
    from ..policy import load_policy, shipped_policies

    if list_all:
        for one in map(load_policy, shipped_policies()):
            click.echo(f"{one.ref:12} {one.digest[:12]}  {one.summary}")
        return 0
    found = load_policy(name)
    click.echo(found.text, nl=False)
    for line in wrap(f"{found.ref} ({'frozen' if found.frozen else 'not frozen'}), sha256 {found.digest}", rest="  "):
        click.echo(line, err=True)
    return 0


def _width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 80


def _writable(*paths: Path | None) -> None:
    from ..errors import InputError

    for path in paths:
        if path is not None and not path.parent.is_dir():
            raise InputError(f"{path.parent}: no such folder; make it first")
