"""The plain vocabulary of rubrics, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rubrics
from rubrics import Change, InputError, Outcome, Problem, RubricError, RubricRef


@pytest.mark.parametrize(
    ("outcome", "mirrored"),
    [(Outcome.WIN, Outcome.LOSS), (Outcome.LOSS, Outcome.WIN), (Outcome.TIE, Outcome.TIE)],
)
def test_outcome_mirrors(outcome: Outcome, mirrored: Outcome) -> None:
    """Seen from the other side a win is a loss and a tie stays a tie, and mirroring twice changes nothing."""
    assert outcome.mirrored is mirrored
    assert outcome.mirrored.mirrored is outcome


def test_outcome_is_its_word() -> None:
    """An outcome is the plain word that stands in files and databases."""
    assert [str(outcome) for outcome in Outcome] == ["win", "tie", "loss"]
    assert Outcome("win") is Outcome.WIN


def test_ref_reads_as_name_at_version() -> None:
    """A ref prints as name@version, and differs from one with another text."""
    assert str(RubricRef("helpfulness", 1, "a" * 64)) == "helpfulness@1"
    assert RubricRef("helpfulness", 1, "a" * 64) != RubricRef("helpfulness", 1, "b" * 64)


def test_ref_is_frozen() -> None:
    """A ref cannot be changed."""
    with pytest.raises(AttributeError):
        RubricRef("helpfulness", 1, "a" * 64).version = 2  # type: ignore[misc]


def test_problem_and_change_words() -> None:
    """A problem prints as path:line: field: message, and a change says its kind."""
    assert str(Problem("a.md", 3, "title", "missing")) == "a.md:3: title: missing"
    kinds = [Change("x", None, "1").kind, Change("x", "1", None).kind, Change("x", "1", "2").kind]
    assert kinds == ["added", "removed", "changed"]


def test_errors_are_the_callers() -> None:
    """A rubric error is an input error."""
    assert issubclass(RubricError, InputError)


def test_import_is_light() -> None:
    """Importing rubrics and its plain words loads neither pydantic nor yaml; the first use of load does."""
    code = (
        "import sys, rubrics; from rubrics import Outcome, RubricRef, RubricError, InputError, Problem;"
        "assert not {'pydantic', 'yaml'} & set(sys.modules), 'loaded early';"
        "rubrics.load; assert {'pydantic', 'yaml'} <= set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_exported_name_exists() -> None:
    """All names of __all__ can be had and are listed by dir; an unknown one is an AttributeError."""
    for name in rubrics.__all__:
        assert getattr(rubrics, name) is not None
        assert name in dir(rubrics)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rubrics.nothing  # type: ignore[attr-defined]
