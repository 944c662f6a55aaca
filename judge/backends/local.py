"""The embedded judge: SmolLM2-135M-Instruct on CTranslate2, offline, without torch. A smoke-test judge, not an oracle.

It shows that a pipeline works and it sees coarse faults (an answer off topic, garbled, repeated or empty). On pairs
where people prefer one of two sound answers its measured skill is near chance: docs/embedded-judge.md has the table, by
method, set and kind of fault.

Pointwise methods never see two answers together, so they cannot prefer a place: each answer is measured once and the
two scores are compared (``scoring``). The ``labels`` method reads the blind prompt and has a strong liking for the
first place.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ..errors import InputError
from ..types import JudgeId
from . import smollm2
from .language_model import open_language_model
from .likelihood import LikelihoodBackend
from .measures import TEMPLATE
from .scoring import METHODS, blindness

if TYPE_CHECKING:
    from .language_model import LanguageModel

__all__ = ["DEFAULT_METHOD", "NOTICE", "LocalBackend", "open_local"]

DEFAULT_METHOD = "blend"
DEFAULT_COMPUTE = "int8"

NOTICE = (
    "The embedded judge (SmolLM2-135M) is a smoke-test judge: its measured skill on human preferences is near "
    "chance and never sufficient to ship; it sees only coarse faults (docs/embedded-judge.md)."
)


class LocalBackend(LikelihoodBackend):
    """Answers asks with the embedded model; the same ask gives the same bits whatever the batch, the order or the
    threads.
    """

    def __init__(self, model: LanguageModel, *, method: str = DEFAULT_METHOD) -> None:
        identity = JudgeId("local/smollm2-135m", smollm2.REVISION, f"{method}-{model.compute}-{TEMPLATE}")
        super().__init__(model, identity, method=method, notice=f"{NOTICE} {blindness(method)}".strip())
        self.language_model = model


def open_local(
    model: str = "",
    *,
    method: str = DEFAULT_METHOD,
    compute: str = DEFAULT_COMPUTE,
    threads: int = 0,
    cache: Path | None = None,
) -> LocalBackend:
    """Open the embedded judge: ``local``, ``local:smollm2-135m``, ``local?method=pmi-mean&compute=float32&threads=2``.

    ``method`` is one of ``judge.backends.scoring.METHODS``; ``threads`` 0 means every core this process may use, at
    most eight; ``cache`` is where the converted model is kept (first use converts for a few seconds, needs about 135 MB
    for int8 and 540 MB for float32).

    Raises:
        InputError: unknown model, method or compute, negative threads.
        BackendUnavailable: weights or engine are not installed; the message holds the command to run.
    """
    if model not in ("", "smollm2-135m"):
        raise InputError(f"local:{model}: the embedded judge is local:smollm2-135m; for another model use hf:{model}")
    if method not in METHODS:
        raise InputError(f"local?method={method}: unknown method; choose one of {', '.join(METHODS)}")
    if compute not in get_args(smollm2.Compute):
        raise InputError(f"local?compute={compute}: choose int8 or float32")
    if threads < 0:
        raise InputError(f"local?threads={threads}: give a number of threads, or 0 for every core")
    engine = open_language_model(compute="int8" if compute == "int8" else "float32", threads=threads, cache=cache)
    return LocalBackend(engine, method=method)
