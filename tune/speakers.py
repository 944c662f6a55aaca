"""Opening what answers: a base, or a candidate by its id, ready for ``generate``."""

from __future__ import annotations

from pathlib import Path

from judge.errors import InputError
from judge.types import JudgeId

from .adapters import quiet
from .candidate import Candidates
from .generate import Speaker
from .models import Base, open_base

__all__ = ["device_of", "open_speaker"]


def device_of(wanted: str) -> str:
    """``auto`` is CUDA where there is one, else the CPU."""
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted


def open_speaker(name: str, shelf: Candidates, cache: Path, *, device: str = "cpu") -> Speaker:
    """A candidate (``c-...``) or a base (``local``, a folder, a hub name), the adapter multiplied in for speed.

    Raises ``InputError`` where the base that opens is not the candidate's.
    """
    if not name.startswith("c-"):
        base = open_base(name, cache, device=device)
        return _speaker(base, base.model, JudgeId(base.name, base.digest[:12]))
    found = shelf.verified(name)
    called = JudgeId(f"candidate/{found.id}", found.adapter[:12])
    if found.whole:
        whole = open_base(str(shelf.folder(found.id) / "adapter"), cache, device=device)
        return _speaker(whole, whole.model, called)
    base = open_base(found.base_spec, cache, device=device)
    if base.ref != found.base:
        raise InputError(f"{found.id} belongs to {found.base}, and {found.base_spec} now opens {base.ref}")
    with quiet():
        return _speaker(base, shelf.load(found.id, base).merge_and_unload(), called)


def _speaker(base: Base, network: object, called: JudgeId) -> Speaker:
    return Speaker.of(network, base.tokenizer, base.text, called)
