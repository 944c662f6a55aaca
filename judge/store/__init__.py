"""The DuckDB store: every query of the package, and a view that can be rebuilt from the journals at any time."""

from __future__ import annotations

from .findings import CheckRun, Findings
from .rows import Known, Settled, settled
from .runs import Audit, RunInfo, Store

__all__ = ["Audit", "CheckRun", "Findings", "Known", "RunInfo", "Settled", "Store", "settled"]
