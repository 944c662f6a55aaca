"""Public helpers to try a pipeline without a model: the scripted judge, a sample pair and a sample rubric.

>>> import judge
>>> from judge.testing import ScriptedBackend, prefer_longer
>>> judge.compare("Say hi.", candidate="Hello there!", baseline="Hi.",
judge=ScriptedBackend(prefer_longer)).outcome.value 'win'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .backends.scripted import ScriptedBackend, prefer_longer
from .types import Answer, Item, Pair

if TYPE_CHECKING:
    from rubrics import Rubric

__all__ = ["ScriptedBackend", "prefer_longer", "sample_pair", "sample_rubric"]


def sample_pair(name: str = "pair-1", *, candidate: str = "Paris.", baseline: str = "Lyon.") -> Pair:
    """A small pair about the capital of France."""
    return Pair(name, Item("What is the capital of France?", category="facts"), Answer(candidate), Answer(baseline))


def sample_rubric() -> Rubric:
    """The latest released ``helpfulness`` rubric."""
    from rubrics import load

    return load("helpfulness")
