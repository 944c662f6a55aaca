"""The one place that reads environment variables."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Environment", "environment"]


@dataclass(frozen=True, slots=True)
class Environment:
    """What the surroundings say: where runs and converted models live, and how to reach a remote judge.

    ``home`` from ``JUDGE_HOME`` (default ``.judge``), ``cache`` from ``JUDGE_CACHE`` or ``XDG_CACHE_HOME`` (default
    ``~/.cache/touchstone-judge``), ``base_url`` from ``OPENAI_BASE_URL``, ``api_key`` from ``OPENAI_API_KEY`` (never
    shown), ``plain`` where ``NO_COLOR`` is set or ``TERM`` is ``dumb``.
    """

    home: Path
    cache: Path
    base_url: str = ""
    api_key: str = field(default="", repr=False)
    plain: bool = False


def environment() -> Environment:
    """Read the environment once."""
    get = os.environ.get
    shared = Path(get("XDG_CACHE_HOME") or Path.home() / ".cache") / "touchstone-judge"
    return Environment(
        home=Path(get("JUDGE_HOME") or ".judge"),
        cache=Path(get("JUDGE_CACHE") or shared),
        base_url=get("OPENAI_BASE_URL", ""),
        api_key=get("OPENAI_API_KEY", ""),
        plain=bool(get("NO_COLOR")) or get("TERM") == "dumb",
    )
