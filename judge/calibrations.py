"""Calibrations as files: read, or refused with the file's name; and the one of a home folder that is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    from calibration.confidence import Calibration

__all__ = ["read_calibration", "stored_calibration"]


def read_calibration(path: Path) -> Calibration:
    """The calibration of a file; raises ``InputError`` naming the file where it is gone, or no whole calibration."""
    from calibration.confidence import Calibration

    try:
        return Calibration.from_json(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8, so no calibration file; write one with `judge calibrate`") from None
    except OSError as error:
        raise InputError(f"{path}: the calibration cannot be read: {error.strerror}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def stored_calibration(home: Path, rubric: str, judge: str) -> tuple[Path, Calibration] | None:
    """The calibration in a home folder for exactly this rubric and judge, and its file; ``None`` where there is none.

    Of several that which rests on the newest verdicts (``dated``), of those the one with the most labels, then by name:
    all of it is in the files, so a copy of the folder chooses the same. Raises ``InputError`` naming a file of the
    folder that is no calibration.

    Example: ``stored_calibration(store.home, "helpfulness@1", "scripted/longer")``.
    """
    fitting = []
    for path in (home / "calibrations").glob("*.json"):
        try:
            kept = read_calibration(path)
        except InputError as error:
            raise InputError(f"{error}; or delete it") from None
        if (kept.rubric, kept.judge) == (rubric, judge):
            fitting.append((path, kept))
    return max(fitting, key=lambda found: (found[1].dated, found[1].n, found[0].name), default=None)
