"""A traffic log: one JSON object a line, one line a unit, in the order in which they came.

    {"key": "user-17", "arm": "candidate", "stage": "5%", "harms": {"error": 0, "refusal": 1}, "eligible": true}

``arm``, ``stage`` and ``eligible`` are what the flag said when it was asked (``flags.Assignment``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from .errors import InputError
from .policy import STAGES
from .watching import Observation

__all__ = ["digest_of", "read_traffic"]


def read_traffic(path: Path) -> Iterator[Observation]:
    """Every observation in order; raises ``InputError`` with file and line for what is none.

    A last line without its end is left out: it is still being written.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            if line.strip():
                yield _observation(line, f"{path}:{number}")


def digest_of(path: Path) -> str:
    """The sha256 of a traffic log as it stands (hex)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _observation(line: bytes, where: str) -> Observation:
    try:
        raw: Any = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error})") from None
    if not isinstance(raw, dict):
        raise InputError(f"{where}: an observation is a JSON object")
    for name, fits, wanted in (
        ("key", lambda value: isinstance(value, str) and value, "a text that is not empty"),
        ("arm", lambda value: value in ("candidate", "baseline"), "candidate or baseline"),
        ("stage", lambda value: value in STAGES, ", ".join(STAGES)),
        ("harms", lambda value: isinstance(value, dict) and all(map(_share, value.values())), "numbers from 0 to 1"),
        ("eligible", lambda value: isinstance(value, bool), "true or false"),
    ):
        if name == "eligible" and name not in raw:
            continue
        if name not in raw or not fits(raw[name]):
            raise InputError(f"{where}: field {name}: {raw.get(name)!r}; give {wanted}")
    harms = {name: float(value) for name, value in raw["harms"].items()}
    return Observation(raw["key"], raw["arm"], raw["stage"], harms, raw.get("eligible", True))


def _share(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1
