"""``judge rollout start|advance|rollback|status|log``: a candidate meets traffic by steps, and can be taken back."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..advice import advised, homed
from ..clock import stamp
from ..environment import environment
from .screen import bring_in, complain, home_option, safe

if TYPE_CHECKING:
    from ..register import Register
    from ..rollout import Rollout
    from ..watching import Proposal

__all__ = ["command"]

_NONE = "no rollout here; start one with: judge rollout start DECISION"
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object.")
_flag = click.option("--flag", default="model", show_default=True, help="The serving flag that is moved.")
_by = click.option("--by", default="", metavar="NAME", help="Who does it; kept in the record.")
_traffic = click.option(
    "--traffic", type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="The traffic log: one JSON object a line (docs/rollout.md).",
)  # fmt: skip


@click.group("rollout")
def command() -> None:
    """Bring a candidate to traffic: shadow, 1%, 5%, 25%, 100%; watched, and taken back with one command."""


@command.command("start", epilog="Example: judge rollout start decision-1f0c --candidate new-7b --baseline old-7b")
@click.argument("licence", metavar="DECISION")
@click.option("--candidate", help="What the flag calls the candidate (default: as the run does).")
@click.option("--baseline", help="What the flag calls the baseline (default: as the run does).")
@click.option("--adapter", type=click.Path(exists=True, path_type=Path), help="The candidate's unmerged adapter.")
@_flag
@_by
@_json
@home_option
def start_(*, licence: str, candidate: str | None, baseline: str | None, adapter: Path | None, flag: str, by: str,
           as_json: bool, home: str | None) -> int:  # fmt: skip
    """Start in the shadow, from a DECISION that says SHIP or a recorded override; nothing else starts a rollout."""
    from ..errors import InputError
    from ..flags import flag_path
    from ..overrides import licence as licence_of
    from ..policy import load_policy_text

    place = _Place.of(home)
    flag_path(place.home, flag)
    entry, decision = licence_of(place.register, licence)
    names = (candidate or decision.candidate, baseline or decision.baseline)
    if names[0] == names[1]:
        raise InputError(f"candidate and baseline are both called {names[0]!r}; name them with --candidate, --baseline")
    decided = place.register.find(str(entry.body.get("decision", entry.id)))
    policy = load_policy_text(str(decided.body["policy_text"]), where=f"{decided.id} (policy)")
    body = {
        "event": "start",
        "to": "shadow",
        "flag": flag,
        "licence": entry.id,
        "run": decision.run_id,
        "candidate": names[0],
        "baseline": names[1],
        "plan": policy.rollout.model_dump(mode="json"),
        "policy": f"{policy.ref} {policy.digest[:12]}",
        "salt": secrets.token_hex(8),
        "adapter": {} if adapter is None else {"path": str(adapter.resolve()), "digest": digest_of_folder(adapter)},
        "reason": str(entry.body.get("reason", "")),
    }
    name = f"ro-{secrets.token_hex(3)}"
    rollout = place.enter(name, body, by=by)
    _show(rollout, None, as_json=as_json)
    then = advised("rollout", "advance", name, "--traffic", "traffic.jsonl")
    click.echo(f"next: log traffic, then: {then}", err=True)
    return 0


@command.command("advance", epilog="Example: judge rollout advance ro-1a2b3c --traffic traffic.jsonl --by ada")
@click.argument("name", metavar="ROLLOUT", default="latest")
@_traffic
@click.option("--force", is_flag=True, help="Advance against the evidence: needs --reason, --by and --second.")
@click.option("--reason", default="", help="Why; kept for good.")
@click.option("--second", default="", metavar="NAME", help="Who agrees with --force: another person.")
@_by
@_json
@home_option
def advance_(*, name: str, traffic: Path | None, force: bool, reason: str, second: str, by: str, as_json: bool,
             home: str | None) -> int:  # fmt: skip
    """Take the next stage, if the traffic shows every guard within its margin. Exit code 4: not yet; 1: roll back."""
    from ..rollout import moved
    from ..watching import Move

    place = _Place.of(home)
    rollout = place.rollout(name)
    to = moved(rollout.state, "advance")
    if force:
        _two_people(by, second, reason)
    if traffic is None and not force:
        raise click.UsageError("give the evidence with --traffic FILE")
    proposal = None if traffic is None else _proposal(rollout, traffic)
    evidence = {} if traffic is None or proposal is None else _evidence(traffic, proposal)
    if proposal is not None and proposal.move is not Move.ADVANCE and not force:
        _show(rollout, proposal, as_json=as_json)
        if proposal.move is Move.ROLL_BACK:
            click.echo(f"next: {advised('rollout', 'rollback', rollout.id, '--reason', 'WHY')}", err=True)
        return 1 if proposal.move is Move.ROLL_BACK else 4
    body = {"event": "advance", "to": to, "reason": reason, "second": second, "forced": force, "evidence": evidence}
    rollout = place.enter(rollout.id, body, by=by)
    _show(rollout, proposal, as_json=as_json)
    return 0


@command.command("rollback", epilog="Example: judge rollout rollback ro-1a2b3c --reason 'refusals rise' --by ada")
@click.argument("name", metavar="ROLLOUT", default="latest")
@click.option("--reason", default="", help="Why; kept for good.")
@click.option("--confirm", metavar="RUN", help="Confirm a rollback by a canary run of what is served now.")
@_traffic
@_by
@_json
@home_option
def rollback_(*, name: str, reason: str, confirm: str | None, traffic: Path | None, by: str, as_json: bool,
              home: str | None) -> int:  # fmt: skip
    """Serve the baseline again, at once. Nothing is trained, merged or deleted; the adapter stays where it is.

    Then judge what is served now as a canary run (its candidate is the baseline again) and give it with --confirm.
    """
    from ..errors import StoreError
    from ..rollout import follow, moved

    place = _Place.of(home)
    try:
        rollout = place.rollout(name)
    except StoreError:
        if confirm is None:
            place.halt_unread(name)
        raise
    if confirm is not None:
        return _confirm(place, rollout, confirm, by=by, as_json=as_json)
    to = moved(rollout.state, "rollback")
    if not reason.strip():
        raise click.UsageError("give --reason: it is kept for good")
    body: dict[str, Any] = {"event": "rollback", "to": to, "reason": reason}
    follow(place.register.entries(), rollout.id, body)
    # The flag first: harm stops even where the traffic cannot be read, or the register cannot be written.
    place.halt(rollout)
    body["evidence"] = {} if traffic is None else _seen(rollout, traffic)
    rollout = place.enter(rollout.id, body, by=by)
    _show(rollout, None, as_json=as_json)
    _adapter(rollout)
    _next(rollout)
    return 0


@command.command("status", epilog="Example: judge rollout status --traffic traffic.jsonl")
@click.argument("name", metavar="ROLLOUT", default="latest")
@_traffic
@_json
@home_option
def status_(*, name: str, traffic: Path | None, as_json: bool, home: str | None) -> int:
    """Where a rollout stands, what is served, and with --traffic what the evidence proposes. Writes nothing.

    Exit code: 0, or with --traffic 0 advance, 4 hold, 1 roll back; 3 where flag and register disagree.
    """
    from ..watching import Move

    place = _Place.of(home)
    if name == "latest" and traffic is None and not place.rollouts():
        click.echo(homed(_NONE), err=True)
        if as_json:
            click.echo("null")
        return 0
    rollout = place.rollout(name)
    proposal = None if traffic is None else _proposal(rollout, traffic)
    _show(rollout, proposal, as_json=as_json)
    _next(rollout)
    trouble = place.trouble(rollout)
    if trouble:
        complain(trouble)
        return 3
    return 0 if proposal is None else {Move.ADVANCE: 0, Move.HOLD: 4, Move.ROLL_BACK: 1}[proposal.move]


@command.command("log", epilog="Example: judge rollout log ro-1a2b3c --json")
@click.argument("name", metavar="ROLLOUT", required=False)
@_json
@home_option
def log_(*, name: str | None, as_json: bool, home: str | None) -> int:
    """Every event, oldest first; the chain of the register is verified on the way."""
    from ..render.rollout import event_text
    from ..render.words import plain

    place = _Place.of(home)
    entries = place.register.entries("rollout") if name is None else list(place.rollout(name).events)
    if as_json:
        click.echo(json.dumps([{**plain(entry), "id": entry.id} for entry in entries]))
        return 0
    if not entries:
        click.echo(homed(_NONE), err=True)
    for entry in entries:
        click.echo(f"{entry.subject}  {event_text(entry)}" if name is None else event_text(entry))
    return 0


@dataclass(frozen=True, slots=True)
class _Place:
    """The home folder: its register, its rollouts, its flags."""

    home: Path
    register: Register

    @classmethod
    def of(cls, home: str | None) -> _Place:
        from ..register import Register

        path = Path(home) if home else environment().home
        return cls(path, Register(path))

    def rollouts(self) -> list[Rollout]:
        from ..rollout import rollouts

        return rollouts(self.register.entries("rollout"))

    def rollout(self, name: str) -> Rollout:
        from ..errors import StoreError

        known = self.rollouts()
        found = known[-1:] if name == "latest" else [one for one in known if one.id.startswith(name)]
        if not known:
            raise StoreError(_NONE)
        if len(found) != 1:
            names = ", ".join(one.id for one in known[-5:])
            raise StoreError(f"{name!r} {'is ambiguous' if found else 'is no rollout here'}; there are: {names}")
        return found[0]

    def enter(self, name: str, body: Mapping[str, Any], *, by: str) -> Rollout:
        """Add one event, if it still fits what the register says when its turn comes, and serve what follows."""
        from ..rollout import follow

        self.register.append("rollout", name, body, at=stamp(), by=by, check=lambda known: follow(known, name, body))
        rollout = self.rollout(name)
        self.serve(rollout.flag)
        return rollout

    def serve(self, flag: str) -> None:
        """Make a flag say what the register says now; two processes take turns, so that the later event stays."""
        from ..flags import FlagFile, flag_of, flag_path
        from ..rollout import newest

        file = FlagFile(flag_path(self.home, flag))
        with file.turn():
            found = newest(self.rollouts(), flag)
            assert found is not None  # an event of it was just written
            file.write(flag_of(found))
        click.echo(f"flag: {safe(str(file.path))}", err=True)

    def halt(self, rollout: Rollout) -> None:
        """Point the flag at the baseline before anything else is written."""
        from dataclasses import replace

        from ..flags import FlagFile, flag_of, flag_path

        stopped = replace(
            flag_of(rollout), state="rolled back", share=0.0, shadow=False, sequence=len(rollout.events) + 1
        )
        file = FlagFile(flag_path(self.home, rollout.flag))
        with file.turn():
            file.write(stopped)

    def halt_unread(self, name: str) -> None:
        """Where the register cannot be read: point the one flag that serves this rollout at the baseline, by its file.

        Writes nothing where the register is well (the name is wrong then), or several flags fit.
        """
        from dataclasses import replace

        from ..errors import StoreError
        from ..flags import FlagFile

        try:
            self.rollouts()
        except StoreError:
            files = [FlagFile(path) for path in (self.home / "flags").glob("*.json") if path.suffixes == [".json"]]
            served = [
                (file, flag) for file in files if (flag := file.read()) is not None and (flag.share or flag.shadow)
            ]
            fits = [(file, flag) for file, flag in served if name == "latest" or flag.rollout.startswith(name)]
            for file, flag in fits if len(fits) == 1 else ():
                with file.turn():
                    file.write(replace(flag, state="rolled back", share=0.0, shadow=False, sequence=flag.sequence + 1))
                click.echo(
                    f"flag: {safe(str(file.path))} serves {safe(flag.baseline)} again; this stands in no register: "
                    "restore it, then roll back once more",
                    err=True,
                )

    def trouble(self, rollout: Rollout) -> str:
        """How what is served differs from what the register says; empty where it does not."""
        from ..flags import FlagFile, flag_of, flag_path
        from ..rollout import newest

        latest = newest(self.rollouts(), rollout.flag)
        if latest is None or latest.id != rollout.id:
            return ""
        path = flag_path(self.home, rollout.flag)
        file = FlagFile(path)
        served = file.read()
        if file.problem or served is None:
            return f"{file.problem or path}: readers keep their last good value; judge rollout rollback writes it anew"
        if served != flag_of(rollout):
            said = f"the register says {rollout.id} at {rollout.state!r}"
            return f"{path} serves {served.rollout} at {served.state!r}, {said}"
        return ""


def _proposal(rollout: Rollout, traffic: Path) -> Proposal:
    from ..policy import STAGES, Plan
    from ..rollout import logged_before
    from ..traffic import read_traffic
    from ..watching import propose

    if rollout.state not in STAGES:
        raise click.UsageError(f"{rollout.id} is {rollout.state}: no traffic is compared any more")
    return propose(Plan.model_validate(rollout.plan), rollout.state, read_traffic(traffic), said=logged_before(rollout))


def _evidence(traffic: Path, proposal: Proposal) -> dict[str, Any]:
    from ..render.words import plain
    from ..traffic import digest_of

    return {"traffic": str(traffic.resolve()), "sha256": digest_of(traffic), "proposal": plain(proposal)}


def _seen(rollout: Rollout, traffic: Path) -> dict[str, Any]:
    """The evidence of a rollback; where the traffic cannot be read, why: going back waits for no evidence."""
    from ..errors import InputError

    try:
        return _evidence(traffic, _proposal(rollout, traffic))
    except (InputError, OSError, click.ClickException) as error:
        why = error.message if isinstance(error, click.ClickException) else str(error)
        click.echo(f"note: rolled back without evidence: {safe(why)}", err=True)
        return {"traffic": str(traffic.resolve()), "unread": why}


def _confirm(place: _Place, rollout: Rollout, run_id: str, *, by: str, as_json: bool) -> int:
    """Hold a canary run against what should be served again; the rollback is confirmed where it fits."""
    from ..confirmation import canary_of
    from ..rollout import moved
    from ..store import Store

    to = moved(rollout.state, "confirm")
    store = Store(place.home)
    bring_in(store)
    found = canary_of(store, store.run(run_id), rollout)
    if found.faults:
        click.echo(f"not confirmed by run {found.run_id}:", err=True)
        for fault in found.faults:
            click.echo(f"  x {safe(fault)}", err=True)
        return 1
    body = {"event": "confirm", "to": to, "reason": found.says, "run": found.run_id,
            "shown": None if found.shown is None else found.shown.to_dict()}  # fmt: skip
    rollout = place.enter(rollout.id, body, by=by)
    _show(rollout, None, as_json=as_json)
    click.echo(f"confirmed: {safe(found.says)}", err=True)
    return 0


def _adapter(rollout: Rollout) -> None:
    """Say whether the candidate's adapter is still there, as it was."""
    if not rollout.adapter:
        return
    path = Path(rollout.adapter["path"])
    if not path.exists():
        click.echo(f"note: the adapter {safe(str(path))} is gone; the register keeps its digest", err=True)
    elif digest_of_folder(path) != rollout.adapter["digest"]:
        click.echo(f"note: the adapter {safe(str(path))} is no longer what was rolled out", err=True)
    else:
        click.echo(f"adapter: {safe(str(path))} kept, unchanged", err=True)


def digest_of_folder(path: Path) -> str:
    """The sha256 over a file, or over the names and contents of all files of a folder, sorted."""
    total = hashlib.sha256()
    files = [path] if path.is_file() else sorted(entry for entry in path.rglob("*") if entry.is_file())
    for file in files:
        total.update(file.relative_to(path.parent).as_posix().encode() + b"\0")
        with file.open("rb") as handle:
            total.update(hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()


def _next(rollout: Rollout) -> None:
    """The step that a rolled-back rollout still waits for."""
    from ..rollout import ROLLED_BACK

    if rollout.state == ROLLED_BACK:
        click.echo(
            "next: judge what is served now as a run, then: "
            f"{advised('rollout', 'rollback', rollout.id, '--confirm', 'RUN')}",
            err=True,
        )


def _two_people(by: str, second: str, reason: str) -> None:
    from ..overrides import two_people

    two_people((by, second), reason)


def _show(rollout: Rollout, proposal: Proposal | None, *, as_json: bool) -> None:
    from ..render.rollout import proposal_text, rollout_text
    from ..render.words import plain

    if as_json:
        body = {name: value for name, value in plain(rollout).items() if name not in ("events", "salt")}
        body |= {"share": rollout.share, "only": list(rollout.only), "events": [entry.id for entry in rollout.events]}
        click.echo(json.dumps({**body, "proposal": None if proposal is None else plain(proposal)}))
        return
    click.echo(rollout_text(rollout))
    if proposal is not None:
        click.echo(proposal_text(proposal))
