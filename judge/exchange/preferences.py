"""Preference data of TRL (standard, conversational, implicit prompt, unpaired) and RewardBench.

Shapes: huggingface/trl ``docs/source/dataset_formats.md``; the card of ``allenai/reward-bench``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from os.path import commonprefix
from typing import Any

from .rows import BadRow, Layout, Row, check_text, undecided

__all__ = ["REWARDBENCH", "TRL", "UNPAIRED"]

_IMPLICIT, _FULL = "implicit", "full"
"""How ``prompt`` stood in the file: nowhere, or as a text beside conversations that repeat it."""


def _turns(value: Any, name: str) -> Any:
    """A text or a list of turns, as it is; raises ``BadRow`` for anything else."""
    if isinstance(value, str):
        return check_text(value, name)
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) and "role" in turn for turn in value):
        raise BadRow("malformed", f"{name!r} is neither a text nor a list of {{role, content}}")
    return value


def _after_trl(ours: Row, rest: Mapping[str, Any]) -> None:
    assert isinstance(rest, dict)
    for name in ("prompt", "chosen", "rejected"):
        if name in ours:
            _turns(ours[name], name)
    chosen, rejected = ours["chosen"], ours["rejected"]
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise BadRow("malformed", "'chosen' is a text and 'rejected' a conversation, or the other way round")
    shape = ""
    if ours.get("prompt") is None:
        shape, cut = _IMPLICIT, _common(chosen, rejected)
        if not cut:
            raise BadRow(
                "missing", "no 'prompt', and the two answers do not begin alike, so none can be read from them"
            )
        ours["prompt"] = chosen[:cut]
    elif isinstance(ours["prompt"], str) and isinstance(chosen, list):
        cut = _common(chosen, rejected)
        if cut == 0:
            ours["prompt"] = [{"role": "user", "content": ours["prompt"]}]
            rest["prompt"] = None
        elif chosen[cut - 1].get("content") == ours["prompt"]:
            shape, rest["prompt"], ours["prompt"] = _FULL, ours["prompt"], chosen[:cut]
        else:
            raise BadRow("malformed", "'prompt' is a text, and the turns that both answers share do not end with it")
    else:
        cut = 0
    ours["chosen"], ours["rejected"] = chosen[cut:], rejected[cut:]
    if shape:
        rest["shape"] = shape
    _refuse_nothing(ours)


def _refuse_nothing(ours: Row) -> None:
    if ours["chosen"] == ours["rejected"]:
        raise BadRow("degenerate", "'chosen' equals 'rejected': there is nothing to prefer")
    if not ours["chosen"] or (isinstance(ours["chosen"], str) and not ours["chosen"].strip()):
        raise BadRow("degenerate", "'chosen' is empty")


def _before_trl(theirs: Row, ours: Row) -> None:
    shape = theirs.pop("shape", "")
    if shape in (_IMPLICIT, _FULL):
        asked = ours["prompt"]
        theirs["chosen"], theirs["rejected"] = asked + ours.pop("chosen"), asked + ours.pop("rejected")
        del ours["prompt"]
        if shape == _IMPLICIT:
            theirs.pop("prompt", None)
    elif "prompt" in theirs and theirs["prompt"] is None:
        ours["prompt"] = ours["prompt"][0]["content"]


def _common(chosen: Any, rejected: Any) -> int:
    """How much the two answers share at the start: turns of a conversation, or characters up to a last space.

    As in TRL's ``extract_prompt``: a space before the first difference belongs to the answers. (Where one text begins
    the other TRL leaves it its last character; here it is an empty answer.)
    """
    if isinstance(chosen, list):
        pairs: Iterator[tuple[Any, Any]] = zip(chosen, rejected, strict=False)
        count = 0
        for one, other in pairs:
            if one != other:
                break
            count += 1
        return count
    count = len(commonprefix([chosen, rejected]))  # noqa: RUF071 - characters are meant
    return count - 1 if count and chosen[count - 1] == " " else count


def _after_unpaired(ours: Row, _rest: Mapping[str, Any]) -> None:
    said = _turns(ours["answer"], "completion")
    ours["answer"] = {"text": said} if isinstance(said, str) else {"messages": said}
    ours["answer"] |= ours.pop("answer_fields", {})
    asked = _turns(ours["prompt"], "prompt")
    if isinstance(asked, list):
        ours["messages"] = asked
        del ours["prompt"]
    if not isinstance(ours["good"], bool):
        raise BadRow("malformed", f"'label' is {ours['good']!r}; use true or false")


def _before_unpaired(_theirs: Row, ours: Row) -> None:
    answer = ours["answer"]
    ours["prompt"] = ours.pop("messages", None) or ours.get("prompt")
    ours["answer"] = answer.pop("messages", None) or answer.pop("text", None)
    if answer:
        ours["answer_fields"] = answer


def _flipped(name: str) -> bool:
    """Whether the better answer of this row stands as the baseline: a fair coin from its id.

    Were the better answer always the candidate, every label would be a win, and a judge that always says so perfect.
    """
    return bool(hashlib.sha256(f"rewardbench:{name}".encode()).digest()[0] & 1)


def _after_rewardbench(ours: Row, _rest: Mapping[str, Any]) -> None:
    ours["label"] = ours.get("label") or ("loss" if _flipped(str(ours["id"])) else "win")
    if ours["label"] == "loss":
        ours["candidate"], ours["baseline"] = ours["baseline"], ours["candidate"]


def _before_rewardbench(_theirs: Row, ours: Row) -> None:
    label = ours.pop("label", None)
    if label not in ("win", "loss"):
        raise undecided(label)
    if label == "loss":
        ours["candidate"], ours["baseline"] = ours["baseline"], ours["candidate"]
    if _flipped(str(ours["id"])) != (label == "loss"):
        ours["label"] = label
    for side in ("candidate", "baseline"):
        if isinstance(ours[side], str):
            ours[side] = {"text": ours[side]}


TRL = Layout(
    name="trl",
    kind="preference",
    fields={"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", "tools": "tools"},
    required=("chosen", "rejected"),
    after=_after_trl,
    before=_before_trl,
)

UNPAIRED = Layout(
    name="trl-unpaired",
    kind="answer",
    fields={"prompt": "prompt", "answer": "completion", "good": "label", "tools": "tools"},
    required=("prompt", "completion", "label"),
    after=_after_unpaired,
    before=_before_unpaired,
)

REWARDBENCH = Layout(
    name="rewardbench",
    kind="pair",
    fields={
        "id": "id", "prompt": "prompt", "category": "subset", "candidate.text": "chosen",
        "candidate.model": "chosen_model", "baseline.text": "rejected", "baseline.model": "rejected_model",
    },
    required=("id", "prompt", "chosen", "rejected"),
    texts=("prompt", "chosen", "rejected"),
    after=_after_rewardbench,
    before=_before_rewardbench,
)  # fmt: skip
