"""Calibrations as files: read, or refused with the file's name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    from calibration.confidence import Calibration

__all__ = ["read_calibration"]


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
