"""The one place that reads environment variables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Environment", "calm_litellm", "calm_ray", "cores", "environment"]

_SECRET = re.compile(r"_(?:(?:[A-Z]+)?API)?(?:KEY|TOKEN|SECRET|PASSWORD)$|_BEARER_TOKEN_\w+$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Environment:
    """What the surroundings say: where runs and converted models live, and how to reach a remote judge.

    ``home`` from ``JUDGE_HOME`` (default ``.judge``), ``cache`` from ``JUDGE_CACHE`` or ``XDG_CACHE_HOME`` (default
    ``~/.cache/touchstone-judge``), ``base_url`` from ``OPENAI_BASE_URL``, ``api_key`` from ``OPENAI_API_KEY`` (never
    shown), ``plain`` where ``NO_COLOR`` is set or ``TERM`` is ``dumb``. ``keys`` are all variables named like a secret
    (``..._KEY``, ``..._APIKEY``, ``..._TOKEN``, ``..._SECRET``, ``..._PASSWORD``, ``..._BEARER_TOKEN_...``): a judge
    string may name one (``key_env``), and their values are kept out of everything that is written. ``prices`` from
    ``JUDGE_PRICES``: a file of your own prices.
    ``crash_at`` from ``JUDGE_CRASH_AT`` (for tests; see ``judge/failpoints.py``).
    """

    home: Path
    cache: Path
    base_url: str = ""
    api_key: str = field(default="", repr=False)
    plain: bool = False
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    prices: Path | None = None
    crash_at: str = ""


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
        keys={name: value for name, value in os.environ.items() if value and _SECRET.search(name)},
        prices=Path(prices) if (prices := get("JUDGE_PRICES")) else None,
        crash_at=get("JUDGE_CRASH_AT", ""),
    )


def calm_litellm() -> None:
    """Keep litellm from fetching a price map over the network; it reads these variables when it is imported."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("DO_NOT_TRACK", "1")


def calm_ray(token: str = "") -> None:
    """Keep Ray from sending usage statistics and from uploading the working folder under ``uv run``; it reads these
    variables when it is imported.

    With ``token`` for a cluster that this process starts: on loopback only, and closed to other users of the machine by
    this token, which is written nowhere (Ray would otherwise leave one in the home folder). What the user set stays.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    if token:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        if "RAY_AUTH_MODE" not in os.environ:
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)


def cores() -> int:
    """How many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
