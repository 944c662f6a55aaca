"""The commands that make something about a run anew: its files, columns, rubric and judge as the run was begun with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .advice import advised
from .canaries import usual_count

if TYPE_CHECKING:
    from .store import RunInfo

__all__ = ["probe_command", "run_command"]


def probe_command(info: RunInfo, *, fresh: bool = False) -> str:
    """What probes the judge of a run under its rubric, on the answers of the run; ``fresh`` asks it anew."""
    return _written(info, "probe", [], fresh=fresh)


def run_command(info: RunInfo) -> str:
    """What judges the pairs of a run anew, asking for every verdict again."""
    more = []
    limit = info.header["evalset"].get("options", {}).get("limit")
    if limit is not None:
        more += ["--limit", str(limit)]
    if info.header["repeats"] > 1:
        more += ["--repeat", str(info.header["repeats"])]
    canaries = (info.header.get("canaries") or {}).get("count")
    if canaries != usual_count(info.header["evalset"]["rows"]):
        more += ["--canaries", str(canaries or 0)]
    batch = info.header.get("batch")
    if batch:
        more += ["--batch", "--batch-rest", str(batch["rest"])]
        more += ["--batch-size", str(batch["size"])] if batch.get("size") else []
    return _written(info, "run", more, fresh=True)


def _written(info: RunInfo, verb: str, more: list[str], *, fresh: bool) -> str:
    read = info.header["evalset"].get("options", {})
    words = [verb, str(next(iter(info.header["evalset"].get("files", ())), "EVALSET"))]
    for side in ("candidate", "baseline"):
        if read.get(side):
            words += [f"--{side}", str(read[side])]
    for field, column in (read.get("mapping") or {}).items():
        words += ["--map", f"{field}={column}"]
    words += ["--skip-bad"] * bool(read.get("skip_bad"))
    words += [*more, "--rubric", info.rubric, "--judge", str(info.header["judge_spec"])]
    return advised(*words, *(["--no-cache"] if fresh else []), seed=int(info.header.get("seed", 0)))
