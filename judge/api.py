"""The Python API: ``compare`` one pair, ``acompare`` it in an event loop, ``compare_many`` pairs in one go."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from . import screening
from .backends import Backend, open_backend, ready
from .engine import Job, judge_pairs
from .environment import environment
from .errors import InputError
from .types import Answer, Comparison, Item, Pair

if TYPE_CHECKING:
    from calibration.confidence import Calibration
    from rubrics import Rubric

__all__ = ["acompare", "compare", "compare_many"]

T = TypeVar("T")

_opened: dict[str, Backend] = {}
_parsed: dict[str, tuple[bytes, Mapping[str, str], Rubric]] = {}
_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def compare(
    prompt: str,
    *,
    candidate: str,
    baseline: str,
    rubric: str | Path = "helpfulness",
    judge: str | Backend = "local",
    context: Sequence[str] = (),
    reference: str | None = None,
    calibration: Calibration | str | Path | None = None,
) -> Comparison:
    """Judge one pair of answers, blind and in both orders.

    ``rubric`` is ``name@version`` (a bare name means the newest released one) or a path; ``judge`` is a judge string or
    an open backend. ``context`` are the sources and ``reference`` the known answer, used by rubrics that ask for them.
    ``calibration`` is one that ``judge calibrate`` saved, or the path of its file; the result then has ``calibrated``,
    the probability on the human scale that the preferred side is the better one. Nothing is stored; the model stays
    loaded for the next call. Works in scripts and in notebooks.

    Raises ``InputError`` for a rubric, judge string or text that cannot be used, ``NotCalibrated`` (before any call)
    for a calibration of another rubric or judge, ``BackendUnavailable`` where a package or model is missing. An
    unreadable verdict is no exception: it is a comparison with ``invalid`` set.

    >>> import judge
    >>> result = judge.compare("2 + 2?", candidate="4", baseline="5", judge="scripted:longer")
    >>> result.outcome.value, result.preference, result.consistent
    ('tie', 0.5, True)
    """
    if isinstance(context, str):
        raise InputError("context is one text; give a list of texts, one for each source")
    item = Item(prompt, context=tuple(context), reference=reference)
    pair = Pair("pair", item, Answer(candidate), Answer(baseline))
    return compare_many([pair], rubric=rubric, judge=judge, calibration=calibration)[0]


async def acompare(prompt: str, *, candidate: str, baseline: str, **options: Any) -> Comparison:
    """``compare`` for an event loop: the same options and result, without blocking the loop."""
    return await asyncio.to_thread(compare, prompt, candidate=candidate, baseline=baseline, **options)


def compare_many(
    pairs: Iterable[Pair],
    *,
    rubric: str | Path = "helpfulness",
    judge: str | Backend = "local",
    seed: int = 0,
    calibration: Calibration | str | Path | None = None,
) -> list[Comparison]:
    """Judge many pairs in memory and return their comparisons in the order of the pairs; ids must be unique.

    For eval sets on disk use ``judge run``: it streams, can be resumed and stores what was paid for.
    """
    todo = [_checked(pair) for pair in pairs]
    if not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed}; it lies between 0 and 2**63 - 1")
    if len({pair.id for pair in todo}) != len(todo):
        raise InputError("compare_many: pair ids must be unique; two pairs share one")
    settings = _rubric(rubric)
    backend = _backend(judge) if isinstance(judge, str) else judge

    async def work() -> list[Comparison]:
        await ready(backend)
        fitted = None if calibration is None else _calibration(calibration, settings, backend)
        made = await _judge(todo, Job(settings, backend, seed=seed))
        return made if fitted is None else [_on_human_scale(comparison, fitted) for comparison in made]

    return _wait(work())


async def _judge(pairs: list[Pair], job: Job) -> list[Comparison]:
    found = {entry.pair.id: entry.comparison async for entry in judge_pairs(pairs, job)}
    return [replace(found[pair.id], flags=(*found[pair.id].flags, *screening.flags(pair))) for pair in pairs]


def _calibration(given: Calibration | str | Path, rubric: Rubric, backend: Backend) -> Calibration:
    """The calibration, known to be for this rubric and judge; raises ``NotCalibrated`` otherwise."""
    from .calibrations import read_calibration

    if isinstance(given, str | Path):
        given = read_calibration(Path(given))
    return given.require(rubric=rubric.pinned, judge=str(backend.id))


def _on_human_scale(comparison: Comparison, fitted: Calibration) -> Comparison:
    if comparison.preference is None:
        return comparison
    return replace(comparison, calibrated=fitted.confidence(comparison.preference))


def _backend(spec: str) -> Backend:
    """The backend of a judge string, opened once per process: loading a model costs a second, a call milliseconds."""
    with _lock:
        if spec not in _opened:
            _opened[spec] = open_backend(spec, environment())
        return _opened[spec]


def _rubric(rubric: str | Path) -> Rubric:
    """The rubric, parsed once per process: reading its YAML takes longer than everything else around a call.

    A shipped one does not change; a file of the user's is parsed anew where it, or what freezes it, has changed.
    """
    from rubrics import load
    from rubrics.library import frozen, is_path, locate

    own = isinstance(rubric, Path) or is_path(rubric)
    held = _parsed.get(str(rubric))
    found = locate(rubric) if own else None
    if held is not None and (found is None or held[:2] == (found.data, frozen(found, held[2].name))):
        return held[2]
    loaded = load(rubric)
    _parsed[str(rubric)] = (found.data, frozen(found, loaded.name), loaded) if found is not None else (b"", {}, loaded)
    return loaded


def _checked(pair: Pair) -> Pair:
    """The pair itself, once every text in it is known to be text that UTF-8 can hold."""
    _text("prompt", pair.item.prompt)
    _text("candidate", pair.candidate.text)
    _text("baseline", pair.baseline.text)
    if pair.item.reference is not None:
        _text("reference", pair.item.reference)
    for source in pair.item.context:
        _text("context", source)
    return pair


def _text(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name} is {type(value).__name__}, not text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} holds a lone surrogate at character {error.start}; decode the text with errors='strict' first"
        ) from None
    return value


def _wait(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from synchronous code, also where an event loop is running already (Jupyter).

    All calls share one loop in a thread of its own, so that a remote judge keeps its connections from call to call.
    """
    global _loop  # noqa: PLW0603 - one loop a process is the point
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="judge-compare", daemon=True).start()
            atexit.register(_shut)
    future = asyncio.run_coroutine_threadsafe(work, _loop)
    try:
        return future.result()
    except BaseException:  # Ctrl-C, too: what nobody waits for any more is not asked, and the error goes on
        future.cancel()
        raise


def _shut() -> None:
    """Close what was opened, at the end of the process."""
    if _loop is not None and _loop.is_running():
        for backend in _opened.values():
            asyncio.run_coroutine_threadsafe(backend.close(), _loop).result(timeout=5)
        _loop.call_soon_threadsafe(_loop.stop)
