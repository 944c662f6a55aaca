"""Candidates: what came out of a training, kept with everything it came from; and which one a domain serves.

    <home>/candidates/c-1a2b3c4d/
        adapter/          the unmerged adapter (or, where all weights were trained, the whole model)
        candidate.json    the candidate, as below
        training/         header.json, train.jsonl, result.json of the training
        card.md           the model card, written from these records

A candidate's id is the beginning of a digest over base, adapter, recipe, data, rubric and parent: the same training
gives the same candidate. The home's register says which candidates there are (kind ``candidate``) and which one a
domain serves (kind ``serving``). Rolling back is a new entry that names the candidate before; nothing is retrained,
because no adapter is ever thrown away.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from judge.errors import InputError, StoreError
from judge.register import Entry, Register
from judge.writing import write_whole

from .adapters import attach, digest_of_adapter
from .adapters import merge as merge_adapter

if TYPE_CHECKING:
    from .models import Base

__all__ = ["About", "Candidate", "Candidates", "Serving"]

_RECORDS = ("header.json", "train.jsonl", "result.json", "data.json", "reference.json")


@dataclass(frozen=True, slots=True)
class About:
    """What the records of a training do not say: the domain it is for, the rubric that its labels followed, who
    labelled its data, and the candidate it goes on from.
    """

    domain: str = "default"
    rubric: str = ""
    labellers: tuple[str, ...] = ()
    parent: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tuned model by reference. ``base`` is ``NAME@DIGEST``, ``base_spec`` opens it; ``adapter``, ``recipe`` and
    ``data`` are digests (sha256, hex). ``whole`` says that all weights were trained and no base is needed.
    """

    id: str
    base: str
    base_spec: str
    adapter: str
    recipe: str
    data: str
    rubric: str = ""
    domain: str = "default"
    parent: str = ""
    labellers: tuple[str, ...] = ()
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Serving:
    """What a domain serves: a candidate, or the base where ``candidate`` is empty; and what it served before."""

    domain: str
    candidate: str
    before: str
    at: str
    why: str


class Candidates:
    """The candidates of one home folder.

    >>> shelf = Candidates(Path(".judge"))                            # doctest: +SKIP
    >>> shelf.serve("support", "c-1a2b3c4d", at=now, by="ada")        # doctest: +SKIP
    >>> shelf.roll_back("support", at=later, by="ada").candidate      # doctest: +SKIP
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.register = Register(home)

    def folder(self, name: str) -> Path:
        """Where a candidate's files are."""
        return self.home / "candidates" / name

    def add(self, training: Path, base: Base, about: About, *, at: str, by: str = "") -> Candidate:
        """Keep what a finished training made, and register it; the same training twice is one candidate.

        Raises ``InputError`` where the training is not finished, belongs to another base, or its parent is unknown.
        """
        header, adapter = _read(training / "header.json"), training / "adapter"
        if not (training / "result.json").is_file() or not adapter.is_dir():
            raise InputError(f"{training}: this training is not finished; run the same `judge tune train` again")
        if header["base"] != base.digest:
            raise InputError(f"{training}: trained on another base than {base.ref}")
        if about.parent:
            self.get(about.parent)
        parts = {
            "base": base.ref, "adapter": digest_of_adapter(adapter), "recipe": header["recipe"],
            "data": header["data"], "rubric": about.rubric, "parent": about.parent,
        }  # fmt: skip
        name = f"c-{hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:8]}"
        whole = not (adapter / "adapter_config.json").is_file()
        found = Candidate(
            name, base_spec=base.spec, domain=about.domain, labellers=tuple(about.labellers), whole=whole, **parts
        )
        if not self.folder(name).exists():
            self._keep(training, found)
        if not self.register.entries("candidate", name):
            self.register.append("candidate", name, asdict(found), at=at, by=by)
        self.write_card(found)
        return found

    def _keep(self, training: Path, found: Candidate) -> None:
        target = self.folder(found.id)
        work = target.with_name(f".{found.id}.part")
        shutil.rmtree(work, ignore_errors=True)
        try:
            shutil.copytree(training / "adapter", work / "adapter")
            (work / "training").mkdir()
            for name in _RECORDS:
                if (training / name).is_file():
                    shutil.copy2(training / name, work / "training" / name)
            (work / "candidate.json").write_bytes(orjson.dumps(asdict(found), option=orjson.OPT_INDENT_2))
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def all(self) -> list[Candidate]:
        """Every candidate that was registered, in that order."""
        return [_candidate(entry) for entry in self.register.entries("candidate")]

    def get(self, name: str) -> Candidate:
        """The candidate whose id begins with ``name``; raises ``StoreError`` where none or several do."""
        found = {one.id: one for one in self.all() if one.id.startswith(name)}
        if len(found) != 1:
            known = ", ".join(one.id for one in self.all()[-5:]) or "none yet"
            raise StoreError(f"candidate {name!r}: {'several begin so' if found else 'unknown'}; the latest: {known}")
        return next(iter(found.values()))

    def lineage(self, name: str) -> list[Candidate]:
        """A candidate, its parent, the parent's parent and so on."""
        line = [self.get(name)]
        while line[-1].parent and line[-1].parent not in {one.id for one in line}:
            line.append(self.get(line[-1].parent))
        return line

    def verified(self, name: str) -> Candidate:
        """The candidate, its adapter held against the digest that was registered; raises ``StoreError`` where not."""
        found = self.get(name)
        adapter = self.folder(found.id) / "adapter"
        if not adapter.is_dir():
            raise StoreError(f"{found.id}: its adapter is gone ({adapter}); restore it from a copy")
        if digest_of_adapter(adapter) != found.adapter:
            raise StoreError(f"{found.id}: its adapter is not the one that was registered ({adapter} was changed)")
        return found

    def load(self, name: str, base: Base) -> Any:
        """The candidate's network: the base with its adapter in place, unmerged.

        Raises ``InputError`` for an adapter of another base, ``StoreError`` for one that was changed.
        """
        found = self.verified(name)
        if found.whole:
            raise InputError(f"{found.id} is a whole model; open {self.folder(found.id) / 'adapter'} as a base")
        return attach(base, self.folder(found.id) / "adapter")

    def merge(self, name: str, base: Base, output: Path) -> None:
        """Write base and adapter as one model for a server; the adapter stays."""
        found = self.verified(name)
        if found.whole:
            raise InputError(f"{found.id} is a whole model already: {self.folder(found.id) / 'adapter'}")
        merge_adapter(base, self.folder(found.id) / "adapter", output)

    # ---- which one serves

    def serving(self, domain: str) -> Serving | None:
        """What a domain serves now, ``None`` where nothing was ever set."""
        entries = self.register.entries("serving", domain)
        return _serving(entries[-1]) if entries else None

    def serve(self, domain: str, name: str, *, at: str, by: str = "", why: str = "swap") -> Serving:
        """Let a domain serve a candidate (``base``: the base alone) from now on; the one before stays at hand."""
        chosen = "" if name == "base" else self.verified(name).id
        if chosen and self.get(chosen).domain != domain:
            raise InputError(f"{chosen} was trained for the domain {self.get(chosen).domain!r}, not for {domain!r}")
        now = self.serving(domain)
        body = {"candidate": chosen, "before": now.candidate if now else "", "why": why}
        return _serving(self.register.append("serving", domain, body, at=at, by=by))

    def roll_back(self, domain: str, *, at: str, by: str = "") -> Serving:
        """Let a domain serve again what it served before what it serves now.

        Two roll-backs in a row go two steps back, not to and fro. Raises ``InputError`` where nothing came before.
        """
        stack: list[str] = [""]
        for entry in self.register.entries("serving", domain):
            if entry.body["why"] == "rollback":
                stack.pop()
            else:
                stack.append(str(entry.body["candidate"]))
        if len(stack) < 2:
            raise InputError(f"domain {domain!r}: nothing was served before; there is nothing to go back to")
        before = stack[-2]
        body = {"candidate": before, "before": stack[-1], "why": "rollback"}
        if before:
            self.verified(before)
        return _serving(self.register.append("serving", domain, body, at=at, by=by))

    # ---- what is known of it

    def write_card(self, found: Candidate) -> Path:
        """Write the model card anew from the records: training, data, held-out figures, decisions, lineage."""
        path = self.folder(found.id) / "card.md"
        write_whole(path, self.card(found))
        return path

    def card(self, found: Candidate) -> str:
        """The model card as Markdown; what no record says is said to be unknown."""
        training = self.folder(found.id) / "training"
        header, result = _read(training / "header.json"), _read(training / "result.json")
        data = _read(training / "data.json") if (training / "data.json").is_file() else {}
        kind = header["how"]["loss"]["kind"]
        what = "all weights" if found.whole else f"LoRA, rank {header['how']['rank']}"
        beta = header["how"]["loss"]["beta"]
        line = " <- ".join(one.id for one in self.lineage(found.id))
        decisions = self.register.entries("evaluation", found.id)
        rows = [
            ("base", f"{found.base} (opened as `{found.base_spec}`)"),
            (
                "trained",
                f"{what}, {header['trained_parameters']:,} parameters; loss {kind}, beta {beta}",
            ),
            ("adapter digest", f"`{found.adapter}`"),
            ("recipe digest", f"`{found.recipe}`"),
            ("data digest", f"`{found.data}`"),
            ("pairs", f"{header['pairs']} trained on, {header['heldout']} held out"),
            ("labelled by", ", ".join(found.labellers) or "not recorded"),
            ("sources", ", ".join(f"{k} ({n})" for k, n in data.get("sources", {}).items()) or "not recorded"),
            ("rubric", found.rubric or "not recorded"),
            ("domain", found.domain),
            ("lineage", line),
        ]
        figures = result["best"]
        own = figures.get("own") or {}
        watched = [
            (
                "step kept",
                f"{result['best_step']} of {result['steps']}" + (", stopped early" if result["stopped_early"] else ""),
            ),
            ("held-out preference accuracy", _shown(figures["accuracy"])),
            ("held-out loss", _shown(figures["loss"])),
            ("calibration error of sigmoid(margin)", _shown(figures["ece"])),
            ("KL from the reference, nats a token of own answers", _shown(own.get("kl"))),
            ("tokens of own answers", _shown(own.get("tokens"))),
            ("refusals among own answers", _shown(own.get("refusals"))),
        ]
        said = [
            f"- {entry.at}: **{entry.body['word']}** ({entry.id}, run {entry.body['run']}, against "
            f"{entry.body['plan']['against']}, judge {entry.body['plan']['judge']})"
            for entry in decisions
        ]
        warned = [f"- {text}" for text in result["warnings"]]
        return "\n".join(
            [
                f"# Candidate {found.id}", "",
                "Written from the records of this candidate; nothing here was typed in.", "",
                *_table(rows), "", f"## Held-out figures (n = {figures['n']})", "", *_table(watched), "",
                "They say how training went, not whether the model may ship: that is what decisions say.", "",
                "## Warnings", "", *(warned or ["None were raised by the training."]), "",
                "## Decisions", "", *(said or ["None: this candidate has not been evaluated."]), "",
            ]
        )  # fmt: skip


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]


def _shown(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: it is missing; finish the training first") from None
    except ValueError as error:
        raise InputError(f"{path}: it cannot be read ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: it is no record of a training")
    return found


def _candidate(entry: Entry) -> Candidate:
    return Candidate(**{**entry.body, "labellers": tuple(entry.body["labellers"])})


def _serving(entry: Entry) -> Serving:
    return Serving(entry.subject, entry.body["candidate"], entry.body["before"], entry.at, entry.body["why"])
