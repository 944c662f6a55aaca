"""Findings of hard checks, where a check run was recorded for the run that is looked at; none otherwise."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from .place import Place

if TYPE_CHECKING:
    from judge.types import Finding

__all__ = ["findings_of"]


def findings_of(place: Place) -> list[Finding]:
    """The findings about the pairs of the run, empty where no check was made."""
    assert place.run is not None
    if find_spec("judge.store.findings") is None:
        return []
    read = getattr(import_module("judge.store.findings"), "findings_of", None)
    return list(read(place.views.store, place.run.run_id)) if callable(read) else []
