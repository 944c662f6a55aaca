"""The scripted judge: replies come from a function. Public, for tests and for trying a pipeline without a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from ..errors import InputError
from ..types import Ask, JudgeId, Reply, Usage

__all__ = ["ScriptedBackend", "open_scripted", "prefer_longer"]

_FREE = Usage(cost=0.0)
_NOTICE = "scripted judge: it reads no meaning, its verdicts say nothing about quality"


class ScriptedBackend:
    """A judge whose reply to each ask is ``script(ask)``; keeps the asks it was given in ``asked`` where ``keep``.

    >>> from judge.testing import ScriptedBackend
    >>> judge = ScriptedBackend(lambda ask: Reply(text=ask.labels.first))
    >>> str(judge.id)
    'scripted'
    """

    def __init__(
        self,
        script: Callable[[Ask], Reply],
        *,
        name: str = "scripted",
        batch: int = 8,
        concurrency: int = 4,
        notice: str = "",
        keep: bool = True,
    ) -> None:
        self.script, self.batch, self.concurrency, self.notice = script, batch, concurrency, notice
        self.id = JudgeId(name)
        self.asked: list[Ask] = []
        self.keep = keep

    async def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Answer each ask by the script."""
        if self.keep:
            self.asked += asks
        return [self.script(ask) for ask in asks]

    async def close(self) -> None:
        """Nothing to release."""


def prefer_longer(ask: Ask) -> Reply:
    """A reply that prefers the longer text, the surer the greater the length ratio; equal lengths are even."""
    a, b = len(ask.first), len(ask.second)
    first = (a + 1) / (a + b + 2)
    return Reply(probs=(first, 0.0, 1 - first), usage=_FREE)


def _prefer_shorter(ask: Ask) -> Reply:
    """``prefer_longer`` with the places changed round."""
    first, tie, second = prefer_longer(ask).probs or (0.5, 0.0, 0.5)
    return Reply(probs=(second, tie, first), usage=_FREE)


def _by_hash(ask: Ask) -> Reply:
    """A fixed, content-dependent coin: the same texts always get the same, meaningless, probabilities."""
    a, b = (int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) + 1 for text in (ask.first, ask.second))
    return Reply(probs=(a / (a + b), 0.0, 1 - a / (a + b)), usage=_FREE)


_SCRIPTS = {"longer": prefer_longer, "shorter": _prefer_shorter, "hash": _by_hash}


def open_scripted(model: str = "") -> ScriptedBackend:
    """Open ``scripted:longer``, ``scripted:shorter`` or ``scripted:hash`` (also plain ``scripted``); it keeps no
    asks, so that memory stays flat.
    """
    name = model or "hash"
    if name not in _SCRIPTS:
        raise InputError(f"scripted:{model}: unknown script; there are {', '.join(_SCRIPTS)}")
    return ScriptedBackend(_SCRIPTS[name], name=f"scripted/{name}", batch=256, notice=_NOTICE, keep=False)
