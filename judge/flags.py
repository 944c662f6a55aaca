"""The serving flag: which model answers a request, decided by a hashed key, in any process that can read one file.

The file is written whole or not at all, with a digest; a copy lies beside it. A reader that finds it missing, damaged,
half-written or older than what it knows keeps its last good value, after a start the copy, and without either the
caller's default: it fails static, and never to the candidate.

Works without any SDK (``RolloutProvider.resolve``); ``openfeature_provider`` makes an OpenFeature provider of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BackendUnavailable, InputError
from .writing import write_whole

if TYPE_CHECKING:
    from .rollout import Rollout

__all__ = ["Assignment", "Flag", "FlagFile", "RolloutProvider", "assign", "bucket", "flag_of", "openfeature_provider"]

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Flag:
    """What is served: ``share`` of the keys whose risk is among ``only`` (none: all) get ``candidate``.

    ``shadow`` says that the candidate answers beside the baseline, unseen. ``sequence`` counts the events of the
    rollout: a reader never goes back to a smaller one of the same rollout.
    """

    name: str
    rollout: str
    state: str
    share: float
    candidate: str
    baseline: str
    salt: str
    only: tuple[str, ...] = ()
    shadow: bool = False
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who answers one request: ``arm``, the model's ``value``, whether to ask the candidate beside (``shadow``), why.

    ``stage`` and ``eligible`` belong into the traffic log (``watching.Observation``).
    """

    arm: str
    value: str
    stage: str
    eligible: bool
    shadow: bool
    reason: str


def flag_of(rollout: Rollout) -> Flag:
    """What is to be served as a rollout stands."""
    return Flag(
        name=rollout.flag,
        rollout=rollout.id,
        state=rollout.state,
        share=rollout.share,
        candidate=rollout.candidate,
        baseline=rollout.baseline,
        salt=rollout.salt,
        only=rollout.only,
        shadow=rollout.state == "shadow",
        sequence=len(rollout.events),
    )


def bucket(salt: str, key: str) -> float:
    """Where a key falls in [0, 1): the first 64 bits of sha256(salt, key). The same for ever, anywhere."""
    digest = hashlib.sha256(f"{salt}\x1f{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def assign(flag: Flag, key: str, *, risk: str = "") -> Assignment:
    """Who answers the request of this key; whoever met the candidate at 1% meets it at every later stage, too.

    A request that does not say its ``risk`` meets the candidate only where all risks may; one without a key never does.
    """
    eligible = bool(key) and (not flag.only or risk in flag.only)
    chosen = eligible and bucket(flag.salt, key) < flag.share
    reason = "split" if eligible else ("risk not let in at this stage" if key else "no key")
    arm = "candidate" if chosen else "baseline"
    value = flag.candidate if chosen else flag.baseline
    return Assignment(arm, value, flag.state, eligible, flag.shadow and eligible, reason)


class FlagFile:
    """A flag's file, written by the rollout and read by whoever serves; see the module for how it fails."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.copy = path.with_name(f"{path.stem}.last{path.suffix}")
        self.problem = ""
        """Why the file is not what is served now; empty where it is."""
        self._good: Flag | None = None
        self._stamp: tuple[int, ...] | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The turn to write: who reads the register and writes the flag by it does both inside."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(f".{self.path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def write(self, flag: Flag) -> None:
        """Replace the flag; whoever reads sees the old one or the new one, never a mixture."""
        body = {"format": _FORMAT, **asdict(flag)}
        text = json.dumps({**body, "digest": _digest(body)}, sort_keys=True, indent=1) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # The copy first: should the process die here, the file still says what was served, and the copy what was
        # wanted. A reader takes the copy only where the file cannot be read.
        for path in (self.copy, self.path):
            write_whole(path, text, durable=True)

    def read(self) -> Flag | None:
        """The flag as it is served: the file's, else the last good one, else the copy's; ``None`` where none exists.

        A file that did not change is not read again.
        """
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == self._stamp:
                return self._good
            self._take(_parse(self.path.read_text(encoding="utf-8")))
            self._stamp, self.problem = stamp, ""
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            self._stamp, self.problem = None, f"{self.path}: {error}"
            if self._good is None:
                self._good = self._from_copy()
        return self._good

    def _take(self, flag: Flag) -> None:
        good = self._good
        if good is not None and flag.rollout == good.rollout and flag.sequence < good.sequence:
            raise ValueError(f"event {flag.sequence} of {flag.rollout}, after event {good.sequence} was served")
        self._good = flag

    def _from_copy(self) -> Flag | None:
        try:
            return _parse(self.copy.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None


class RolloutProvider:
    """Answers "who serves this request?" from a flag file; no SDK needed.

    >>> provider = RolloutProvider(Path(".judge/flags/model.json"))              # doctest: +SKIP
    >>> provider.resolve("model", "baseline-7b", key="user-17", risk="low").value   # doctest: +SKIP
    'baseline-7b'
    """

    def __init__(self, path: Path) -> None:
        self.file = FlagFile(path)

    def resolve(self, name: str, default: str, *, key: str, risk: str = "") -> Assignment:
        """Who answers; ``default`` (the baseline) where no flag of this name was ever readable. Never raises."""
        flag = self.file.read()
        if flag is None:
            return Assignment("baseline", default, "", False, False, f"static: {self.file.problem or 'no flag'}")
        if flag.name != name:
            return Assignment("baseline", default, "", False, False, f"static: the file holds flag {flag.name!r}")
        found = assign(flag, key, risk=risk)
        if self.file.problem:
            return replace(found, reason=f"stale: {self.file.problem}")
        return found


def _parse(text: str) -> Flag:
    raw = json.loads(text)
    digest = raw.pop("digest")
    if raw.get("format") != _FORMAT or digest != _digest(raw):
        raise ValueError("the digest does not fit: it was edited or damaged")
    fields = {name: value for name, value in raw.items() if name != "format"}
    flag = Flag(**{**fields, "only": tuple(fields["only"])})
    if not 0.0 <= flag.share <= 1.0:
        raise ValueError(f"a share of {flag.share}")
    return flag


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def flag_path(home: Path, name: str) -> Path:
    """Where a flag lies in a home folder; raises ``InputError`` for a name that could leave it."""
    if not name or not all(char.isalnum() or char in "-_" for char in name) or len(name) > 64:
        raise InputError(f"flag {name!r}: use letters, digits, - and _ only")
    return home / "flags" / f"{name}.json"


def openfeature_provider(path: Path) -> Any:
    """An OpenFeature provider over a flag file: string flags give the model, boolean flags whether it is the candidate.

    The targeting key is the hashed key, the attribute ``risk`` the request's. Needs ``openfeature-sdk`` (pip install
    'touchstone-judge[openfeature]'); raises ``BackendUnavailable`` without it.
    """
    try:
        from .openfeature import TouchstoneProvider
    except ImportError as error:
        raise BackendUnavailable(
            "OpenFeature is not installed: pip install 'touchstone-judge[openfeature]' (RolloutProvider needs none)"
        ) from error
    return TouchstoneProvider(RolloutProvider(path))
