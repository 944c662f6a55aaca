"""A decision on its surfaces: terminal, Markdown for a pull request, JSON, JUnit and HTML.

All are made from one ``Decision``, so they say the same. The word stands first, what stands in the way next, what
passed last and short. Names of others are hostile: they cannot steer a terminal, break a table or leave their place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from ..advice import advised, homed, parted
from ..decision import Decision, Result, Ruling, Word
from .page import page
from .words import counted, listed, markdown, safe, wrap

__all__ = ["to_brief", "to_html", "to_json", "to_junit", "to_markdown", "to_text"]

SCHEMA = "judge.decision/1"
_MARK = {Result.PASSED: "ok", Result.FAILED: "x", Result.UNCLEAR: "?", Result.MISSING: "-"}
_LAYERS = ("preference", "behaviour", "evidence")
_AXES = ("capability", "reliability", "safety")
_BRIEF = 4


def to_text(decision: Decision, width: int = 80, *, name: str = "") -> str:
    """The terminal's text: the word, what stands in the way, then what passed; ``name`` is that of the record."""
    width = min(max(width, 60), 110)
    lines = wrap(safe(decision.headline), width=width)
    unnamed = decision.candidate.startswith("evalset:") or decision.baseline.startswith("evalset:")
    told = " (answers that name no model are called after their eval set)" if unnamed else ""
    lines += wrap(safe(f"{decision.candidate} against {decision.baseline}{told}"), first="  ", rest="  ", width=width)
    told = f"run {decision.run_id} under policy {decision.policy} ({decision.policy_digest[:8]})"
    lines += wrap(safe(told), first="  ", rest="  ", width=width)
    for title, rulings in _groups(decision):
        lines += ["", title]
        size = max(len(ruling.rule) for ruling in rulings)
        for ruling in rulings:
            first = f"  {_MARK[ruling.result]:2} {safe(ruling.rule):{min(size, 34)}}  "
            room = len(first) if len(first) < 36 else 5
            if room == 5:  # a long name stands alone, so that its text is one block
                lines.append(first.rstrip())
                first = " " * room
            lines += wrap(safe(ruling.says), first=first, rest=" " * room, width=width)
            if ruling.effect is not Word.SHIP and ruling.pairs:
                lines += wrap(safe(f"pairs {listed(ruling.pairs)}"), first=" " * room, rest=" " * room, width=width)
    free = _free(decision)
    if free:
        lines += ["", f"not judged, and not required by {safe(decision.policy)}: never counted as passed"]
        lines += wrap(safe(", ".join(ruling.rule for ruling in free)), first="  -  ", rest="     ", width=width)
    lines += ["", *_passed_text(decision, width), "", *_layers_text(decision)]
    if decision.needs:
        lines += ["", "what would change it"]
        for need in decision.needs:
            lines += _need_text(safe(homed(need)), width)
    if decision.word is Word.SHIP:
        lines += ["", "rollout"]
        for step in decision.plan:
            lines += wrap(safe(step), first="  ", rest="    ", width=width)
    lines += ["", *_record_text(decision, name)]
    return "\n".join(lines)


def _need_text(need: str, width: int) -> list[str]:
    """What would change a decision; a command that does not fit stands on a line of its own, whole, to be pasted."""
    first, rest = "  -> ", "     "
    if len(first + need) <= width:
        return [first + need]
    lines: list[str] = []
    for piece, command in parted(need):
        before = rest if lines else first
        lines += [before + piece] if command else wrap(piece, first=before, rest=rest, width=width)
    return lines


def to_brief(decision: Decision, width: int = 80) -> str:
    """The headline and what blocks (else what holds), a few lines: for the end of another report."""
    lines = wrap(safe(decision.headline), width=width, first="  ", rest="  ")
    standing = [ruling for ruling in decision.rulings if ruling.effect is decision.word and decision.word != Word.SHIP]
    for ruling in standing[:_BRIEF]:
        lines += wrap(f"{safe(ruling.rule)}: {safe(ruling.says)}", width=width, first="  x ", rest="    ")
    if len(standing) > _BRIEF:
        lines.append(f"    and {len(standing) - _BRIEF} more")
    return "\n".join(lines)


def _groups(decision: Decision) -> Iterator[tuple[str, tuple[Ruling, ...]]]:
    """What stands in the way, by what it does."""
    titles = {Word.BLOCK: "blocks", Word.HOLD: "holds"}
    for effect, title in titles.items():
        found = tuple(ruling for ruling in decision.rulings if ruling.effect is effect)
        if found:
            yield title, found


def _free(decision: Decision) -> tuple[Ruling, ...]:
    return tuple(r for r in decision.rulings if r.result is not Result.PASSED and r.effect is Word.SHIP)


def _passed_text(decision: Decision, width: int) -> list[str]:
    passed = decision.of(Result.PASSED)
    lines = [f"ok {len(passed)} of {counted(len(decision.rulings), 'rule')} passed"]
    for ruling in passed:
        lines += wrap(safe(f"{ruling.rule}: {ruling.says}"), first="  ", rest="    ", width=width)
    return lines


def _layers_text(decision: Decision) -> list[str]:
    """Rulings by layer and axis, counted apart: there is no score over them."""
    lines = ["passed of asked, by layer and axis (never added up)"]
    head = "".join(f"{axis:>14}" for axis in _AXES)
    lines.append(f"  {'':12}{head}")
    for layer in _LAYERS:
        cells = [_cell(decision, layer, axis) for axis in _AXES]
        lines.append(f"  {layer:12}" + "".join(f"{cell:>14}" for cell in cells))
    return lines


def _cell(decision: Decision, layer: str, axis: str) -> str:
    own = [ruling for ruling in decision.rulings if (ruling.layer, ruling.axis) == (layer, axis)]
    passed = sum(ruling.result is Result.PASSED for ruling in own)
    return f"{passed} of {len(own)}" if own else "nothing asked"


def _record_text(decision: Decision, name: str) -> list[str]:
    lines = []
    if name:
        lines.append(f"record: {safe(name)} (append-only, chained)")
        if decision.word is Word.SHIP:
            lines.append(f"next: {safe(advised('rollout', 'start', name))}")
        else:
            lines.append("override, if you must:")
            words = ("gate", "override", name, "--reason", "WHY", "--by", "YOU", "--second", "ANOTHER")
            lines.append(f"  {safe(advised(*words))}")
    return lines


def to_json(decision: Decision, *, name: str = "") -> str:
    """The decision as one JSON object; no NaN, an open end of an interval is null."""
    record = {"record": name} if name else {}
    return json.dumps({"schema": SCHEMA, **record, **decision.to_dict()}, ensure_ascii=False, allow_nan=False)


def to_markdown(decision: Decision, *, name: str = "") -> str:
    """The decision as a comment on a pull request: the word, a table of what stands in the way, the rest folded."""
    icon = {Word.SHIP: ":white_check_mark:", Word.HOLD: ":pause_button:", Word.BLOCK: ":no_entry:"}[decision.word]
    rest = decision.headline.removeprefix(f"{decision.word}.").strip()
    lines = [f"### {icon} {decision.word}: {markdown(decision.candidate)} against {markdown(decision.baseline)}", ""]
    lines += [markdown(rest), ""] if rest else []
    way = decision.standing_in_the_way
    if way:
        lines += ["| | rule | finding | read |", "|---|---|---|---|", *map(_row, way), ""]
    if decision.needs:
        lines += ["**What would change it**", "", *(f"- {markdown(need)}" for need in decision.needs), ""]
    passed = decision.of(Result.PASSED)
    others = (*passed, *_free(decision))
    lines += [f"<details><summary>{len(passed)} of {counted(len(decision.rulings), 'rule')} passed</summary>", ""]
    lines += ["| | rule | finding | read |", "|---|---|---|---|", *map(_row, others), "", "</details>", ""]
    if decision.word is Word.SHIP:
        lines += ["**Rollout**", "", *(f"- {markdown(step)}" for step in decision.plan), ""]
    own = f"policy {decision.policy} {decision.policy_digest[:12]}, run {decision.run_id}"
    return "\n".join([*lines, f"<sub>{markdown(own + (f', record {name}' if name else ''))}</sub>"])


def _row(ruling: Ruling) -> str:
    effect = "" if ruling.effect is Word.SHIP else f" ({ruling.effect.lower()}s)"
    cells = (
        f"{ruling.result}{effect}",
        f"**{markdown(ruling.rule)}**",
        markdown(ruling.says),
        markdown(listed(ruling.pairs)),
    )
    return "| " + " | ".join(cells) + " |"


def to_junit(decision: Decision) -> str:
    """The decision as JUnit XML: one test case a rule; what holds or blocks is a failure, missing evidence an error.

    What was not judged and is not required is skipped. A suite's ``failures`` and ``errors`` are 0 only for SHIP.
    """
    cases = [_case(ruling) for ruling in decision.rulings]
    if decision.void:
        said = escape(_xml("; ".join(decision.void)))
        cases.append(
            f'    <testcase classname="gate.run" name="verdict"><error message="void">{said}</error></testcase>'
        )
    failures = sum(r.effect is not Word.SHIP and r.result is not Result.MISSING for r in decision.rulings)
    errors = sum(r.effect is not Word.SHIP and r.result is Result.MISSING for r in decision.rulings) + bool(
        decision.void
    )
    skipped = len(_free(decision))
    counts = f'tests="{len(cases)}" failures="{failures}" errors="{errors}" skipped="{skipped}"'
    facts = {"word": decision.word, "exit_code": str(decision.exit_code), "policy": decision.policy,
             "policy_digest": decision.policy_digest, "headline": decision.headline}  # fmt: skip
    properties = [
        f"      <property name={quoteattr(key)} value={quoteattr(_xml(text))}/>" for key, text in facts.items()
    ]
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<testsuites name="judge gate" {counts}>',
            f"  <testsuite name={quoteattr(_xml(f'{decision.run_id} under {decision.policy}'))} {counts}>",
            "    <properties>",
            *properties,
            "    </properties>",
            *cases,
            "  </testsuite>",
            "</testsuites>",
        ]
    )


def _case(ruling: Ruling) -> str:
    head = f'    <testcase classname="gate.{escape(ruling.stage)}" name={quoteattr(_xml(ruling.rule))}'
    says = _xml(ruling.says)
    if ruling.result is Result.PASSED:
        return f"{head}><system-out>{escape(says)}</system-out></testcase>"
    if ruling.effect is Word.SHIP:
        return f"{head}><skipped message={quoteattr(says)}/></testcase>"
    tag = "error" if ruling.result is Result.MISSING else "failure"
    more = "\n".join(
        part for part in (says, ruling.change, f"pairs: {listed(ruling.pairs)}" if ruling.pairs else "") if part
    )
    kind = f"{ruling.effect} {ruling.result}"
    return f"{head}><{tag} type={quoteattr(kind)} message={quoteattr(says)}>{escape(_xml(more))}</{tag}></testcase>"


def _xml(text: str) -> str:
    """Text without the characters that XML 1.0 does not know."""
    return "".join(char for char in safe(text) if char in "\t\n" or (char >= " " and char not in "\ufffe\uffff"))


def to_html(decision: Decision, *, name: str = "") -> str:
    """The decision as one self-contained page without scripts."""
    level = {Word.SHIP: "good", Word.HOLD: "care", Word.BLOCK: "bad"}[decision.word]
    return page(
        "gate.html.j2",
        decision=decision,
        name=name,
        level=level,
        mark=_MARK,
        headline=decision.headline.removeprefix(f"{decision.word}.").strip(),
        groups=[
            *((f"What {title}", found) for title, found in _groups(decision)),
            *([("Not judged and not required: never counted as passed", free)] if (free := _free(decision)) else []),
            *([("Passed", passed)] if (passed := decision.of(Result.PASSED)) else []),
        ],
        layers=_LAYERS,
        axes=_AXES,
        cell=lambda layer, axis: _cell(decision, layer, axis),
        listed=listed,
    )
