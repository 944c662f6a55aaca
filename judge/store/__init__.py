"""The DuckDB store: every query of the package, and a view that can be rebuilt from the journals at any time."""

from __future__ import annotations

from .findings import CheckRun, Findings
from .known import Known, ReplyCache
from .rows import Settled, settled
from .runs import Audit, RunInfo, Store

__all__ = ["Audit", "CheckRun", "Findings", "Known", "ReplyCache", "RunInfo", "Settled", "Store", "settled"]
