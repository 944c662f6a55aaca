"""Checkpoints of a training: everything the next step depends on, in safetensors and JSON, whole or not there.

A checkpoint is a folder ``step-000040`` with the trained weights, the two moments of the optimiser and ``state.json``.
It is written beside its place, brought to the disk, and renamed; then older ones are removed but for one. A process
that is killed, or a disk that is full, leaves the last whole checkpoint as it was.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from judge import failpoints
from judge.errors import InputError

__all__ = ["Checkpoint", "latest", "read_tensors", "save", "write_tensors"]

_KEPT = 2
_STEP = "step-*"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint read back: after how many steps, the weights and optimiser moments by name, and the loop's state."""

    step: int
    weights: Mapping[str, Any]
    moments: Mapping[str, Any]
    state: Mapping[str, Any]


def save(folder: Path, step: int, weights: Mapping[str, Any], moments: Mapping[str, Any], state: Any) -> Path:
    """Write the checkpoint after ``step`` steps; returns its folder. Raises the ``OSError`` of a write that failed."""
    target = folder / f"step-{step:06}"
    work = folder / f".{target.name}.part"
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(parents=True)
        write_tensors(work / "weights.safetensors", weights)
        failpoints.reached("within_checkpoint")
        write_tensors(work / "moments.safetensors", moments)
        (work / "state.json").write_bytes(orjson.dumps({"step": step, **state}, option=orjson.OPT_INDENT_2))
        for path in [*work.iterdir(), work]:
            _sync(path)
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
        _sync(folder)
    except OSError:
        shutil.rmtree(work, ignore_errors=True)
        raise
    for old in sorted(folder.glob(_STEP))[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    failpoints.reached("after_checkpoint")
    return target


def latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint of a folder, ``None`` where there is none.

    Raises ``InputError`` for one that cannot be read.
    """
    found = sorted(folder.glob(_STEP))
    if not found:
        return None
    path = found[-1]
    try:
        state = orjson.loads((path / "state.json").read_bytes())
        weights, moments = read_tensors(path / "weights.safetensors"), read_tensors(path / "moments.safetensors")
        return Checkpoint(int(state["step"]), weights, moments, state)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: this checkpoint is damaged ({error}); remove it to go on from the one before"
        ) from None


def write_tensors(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors; a full disk is the ``OSError`` that it is."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=dict(metadata or {}))
    except SafetensorError as error:
        full = "No space left" in str(error) or "os error 28" in str(error)
        raise OSError(
            errno.ENOSPC if full else errno.EIO, "no space left" if full else str(error), str(path)
        ) from error


def read_tensors(path: Path) -> dict[str, Any]:
    """Tensors of a safetensors file, on the CPU; raises ``ValueError`` for a file that is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found: dict[str, Any] = load_file(path)
        return found
    except SafetensorError as error:
        raise ValueError(f"{path}: {error}") from error


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
