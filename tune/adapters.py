"""Adapters on disk: written without the paths of this machine, put on a base only if it is theirs, merged for serving.

An adapter is a folder in the form of peft (``adapter_config.json``, ``adapter_model.safetensors``) and names its base
as ``NAME@DIGEST``. The same weights on another base are another model, so a base whose digest differs is refused. Where
all weights were trained, the folder is a whole model.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from judge.errors import InputError

from .models import digest_of_folder, require_safetensors

if TYPE_CHECKING:
    from .models import Base

__all__ = ["attach", "base_of", "digest_of_adapter", "merge", "quiet", "write_adapter"]

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence two warnings that say nothing to whoever tunes: peft asks transformers by a name that is going away, and
    it notes that our adapters name their base by digest and not by its path.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*base_model_name_or_path.*", category=UserWarning)
        yield


def attach(base: Base, adapter: Path, *, trainable: bool = False) -> Any:
    """The base with the adapter in place, unmerged (a peft model).

    Raises ``InputError`` for a folder without an adapter, with pickled weights, or of another base.
    """
    import peft

    require_safetensors(adapter)
    was = base_of(adapter)
    if was != base.ref:
        raise InputError(f"{adapter}: this adapter belongs to {was}, not to {base.ref}; open its own base")
    with quiet():
        model = peft.PeftModel.from_pretrained(base.model, str(adapter), is_trainable=trainable)
    return model if trainable else model.eval()


def base_of(adapter: Path) -> str:
    """Which base (``NAME@DIGEST``) an adapter belongs to; raises ``InputError`` where the folder holds none."""
    try:
        found = orjson.loads((adapter / _CONFIG).read_bytes())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{adapter}: no adapter stands there ({_CONFIG} is missing or cannot be read)") from None
    return str(found)


def digest_of_adapter(adapter: Path) -> str:
    """sha256 (hex) of the adapter: its weights and configuration (of a whole model, all its files)."""
    if not (adapter / _CONFIG).is_file():
        return digest_of_folder(adapter)
    digest = hashlib.sha256()
    for name in (_CONFIG, _WEIGHTS):
        digest.update(hashlib.sha256((adapter / name).read_bytes()).digest())
    return digest.hexdigest()


def write_adapter(model: Any, base: Base, folder: Path, *, whole: bool = False) -> None:
    """Write the adapter of a peft model (or, ``whole``, the model and its tokenizer); it appears whole."""
    work = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    try:
        if whole:
            model.save_pretrained(work)
            base.tokenizer.save_pretrained(work)
        else:
            model.save_pretrained(work, save_embedding_layers=False)
            config = orjson.loads((work / _CONFIG).read_bytes())
            config["base_model_name_or_path"] = base.ref
            config["target_modules"] = sorted(config["target_modules"])
            (work / _CONFIG).write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
            (work / "README.md").unlink(missing_ok=True)  # peft's empty model card; ours is written from the records
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def merge(base: Base, adapter: Path, folder: Path) -> None:
    """Write the base with the adapter multiplied in, as a whole model for serving; the adapter stays as it is."""
    if folder.exists():
        raise InputError(f"{folder}: it exists; name another folder")
    merged = attach(base, adapter).merge_and_unload()
    work = folder.with_name(f".{folder.name}.part")
    try:
        merged.save_pretrained(work)
        base.tokenizer.save_pretrained(work)
        folder.parent.mkdir(parents=True, exist_ok=True)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
