"""Regression suites: hard checks on every answer of the candidate and of the baseline, paired.

A check says what has to hold, whatever a preference says: a warmer answer is no win where the JSON does not parse.
``load_suite`` reads a suite, ``examine`` runs it over pairs in one pass, ``CheckReport`` holds what came out.
"""

from __future__ import annotations

from .check import Check, Observation, failed, passed, unjudged

__all__ = ["Check", "Observation", "failed", "passed", "unjudged"]
