"""Named points at which a test can stop the process: what fail points are in storage engines (FreeBSD's fail(9), the
``fail`` crate of TiKV).

Nothing happens at a point unless a hook was installed, by a test in the same process (``install``) or for a child
process by ``JUDGE_CRASH_AT=NAME[:N[:SIGNAL]]``: at the N-th time that NAME is reached the process sends itself SIGNAL
(``KILL`` by default; ``INT`` is what Ctrl-C sends).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from .errors import InputError

__all__ = ["BATCH_POINTS", "POINTS", "PROBE_POINTS", "TUNE_POINTS", "armed", "install", "killer", "reached"]

_KINDS = ("run", "pair", "intent", "reply", "seal")
POINTS = (
    *(f"{place}_{kind}" for kind in _KINDS for place in ("before", "within", "after")),
    "before_call",
    "after_call",
    "before_fsync",
    "after_fsync",
    "before_ingest",
    "after_segments",
    "after_delete",
    "before_listing",
    "after_ingest",
)
"""Every point in the order of a run. ``before``, ``within`` (half of the bytes are written) and ``after`` stand around
the write of a record of that kind; the last five are steps of bringing a journal into the database."""

BATCH_POINTS = (
    "after_upload",
    "after_submit",
    "while_polling",
    "while_reading",
    *(f"{place}_{kind}" for kind in ("batch_intent", "batch", "batch_end") for place in ("before", "within", "after")),
)
"""The same for a run through a batch interface; ``after_submit`` is the moment in which the provider has made a batch
and nobody has written down its id."""

PROBE_POINTS = ("before_probing", "after_probing", "before_probe", "within_probe", "after_probe")
"""The same for a run that has to find out its judge's mode: before and after the calls that do, which come before the
journal, and around the record that books them."""

TUNE_POINTS = ("after_step", "within_checkpoint", "after_checkpoint")
"""The same for a training: after a step of the optimiser, in the middle of writing a checkpoint, and after it."""

Hook = Callable[[str], None]

_hook: Hook | None = None


def install(hook: Hook | None) -> None:
    """Call ``hook`` with the name of every point that is reached from now on; ``None`` removes it."""
    global _hook  # noqa: PLW0603 - a point is reached deep inside; handing a hook through every layer would bend them all
    _hook = hook


def armed() -> bool:
    """Whether a hook is installed."""
    return _hook is not None


def reached(name: str) -> None:
    """Say that a point is reached."""
    if _hook is not None:
        _hook(name)


def killer(spec: str) -> Hook:
    """The hook that ``NAME[:N[:SIGNAL]]`` describes; raises ``InputError`` for a name or signal that does not exist."""
    name, _, rest = spec.partition(":")
    count, _, sent = rest.partition(":")
    number = getattr(signal, f"SIG{sent or 'KILL'}", None)
    if name not in POINTS + PROBE_POINTS + BATCH_POINTS + TUNE_POINTS or number is None or not (count or "1").isdigit():
        raise InputError(f"JUDGE_CRASH_AT={spec}: write NAME[:N[:SIGNAL]]; the names are {', '.join(POINTS)}")
    left = int(count or 1)

    def hook(at: str) -> None:
        nonlocal left
        if at == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), number)

    return hook
