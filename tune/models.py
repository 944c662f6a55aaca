"""Opening a base model: the embedded SmolLM2, a folder, or a name on the Hugging Face hub.

Only safetensors weights are read and no code of a repository is run. A folder that holds pickled weights alone is
refused before torch sees it: unpickling runs whatever the file says. The embedded weights are dequantised once to
float32 safetensors in the user's cache, under a key of the GGUF file's hash; the folder is renamed into place when it
is whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from judge.backends import smollm2
from judge.backends.hf import HuggingFaceModel
from judge.errors import BackendUnavailable, InputError

__all__ = ["INSTALL", "Base", "digest_of_folder", "embedded_base", "open_base", "require_safetensors"]

INSTALL = "python -m pip install 'touchstone-judge[tune]'"

_CONVERTER = 1
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_DECISIVE = (".safetensors", ".json", ".jinja", ".model", ".txt")


@dataclass(frozen=True, slots=True)
class Base:
    """An open base model. ``spec`` opens it again, ``name`` is for people, ``digest`` (sha256, hex) covers weights,
    configuration and tokenizer. ``text`` encodes and decodes.
    """

    spec: str
    name: str
    digest: str
    model: Any
    tokenizer: Any
    text: HuggingFaceModel

    @property
    def ref(self) -> str:
        """Name and the beginning of the digest, for example ``SmolLM2-135M-Instruct@5f1c0a9be37d``."""
        return f"{self.name}@{self.digest[:12]}"


def open_base(spec: str, cache: Path, *, device: str = "cpu", dtype: str = "auto") -> Base:
    """Open ``local`` (the embedded SmolLM2), a folder or a hub name as a causal language model.

    ``dtype`` auto means float32 on a CPU and bfloat16 on a GPU.

    Raises:
        InputError: a folder without a model, or with pickled weights only; an unknown dtype.
        BackendUnavailable: torch or transformers is missing, or the model cannot be loaded.
    """
    if dtype not in ("auto", "float32", "bfloat16"):
        raise InputError(f"dtype {dtype!r}: choose auto, float32 or bfloat16")
    try:
        import torch
        import transformers
    except ImportError as error:
        raise BackendUnavailable(f"tuning needs the package {error.name}; run: {INSTALL}") from error
    transformers.utils.logging.disable_progress_bar()
    place = str(embedded_base(cache)) if spec == "local" else spec.removeprefix("hf:")
    folder = Path(place)
    if folder.is_dir():
        require_safetensors(folder)
    elif place.startswith((".", "/", "~")):
        raise InputError(f"{place}: there is no such folder; name a folder, OWNER/NAME or local")
    kind = dtype if dtype != "auto" else "bfloat16" if str(device).startswith("cuda") else "float32"
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            place, dtype=getattr(torch, kind), use_safetensors=True, trust_remote_code=False, attn_implementation="sdpa"
        )
    # Loading reports through many types (OSError, ValueError, safetensors' own); all of them mean: not usable here.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BackendUnavailable(f"{spec}: the base model cannot be loaded: {reason}") from error
    model = model.to(device).eval()
    if folder.is_dir():
        digest, name = digest_of_folder(folder), "SmolLM2-135M-Instruct" if spec == "local" else folder.resolve().name
    else:
        digest, name = str(getattr(model.config, "_commit_hash", "") or ""), place
    return Base(spec, name, digest, model, tokenizer, HuggingFaceModel(model, tokenizer, batch=1))


def require_safetensors(folder: Path) -> None:
    """Raise ``InputError`` where a folder has no safetensors weights, naming pickled ones that it has instead."""
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickled:
        raise InputError(
            f"{folder / pickled[0]}: pickled weights are refused, because reading them runs code; convert them to "
            "safetensors where you trust them (transformers: model.save_pretrained(folder))"
        )
    raise InputError(f"{folder}: no *.safetensors file; this is no folder of a model or an adapter")


def digest_of_folder(folder: Path) -> str:
    """sha256 (hex) over the names and contents of the files that decide what a model says."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in _DECISIVE:
            with path.open("rb") as file:
                digest.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def embedded_base(cache: Path) -> Path:
    """Folder of SmolLM2-135M-Instruct in float32 safetensors (540 MB), converted now if it is not in the cache yet."""
    target = cache / "models" / f"smollm2-135m-{smollm2.REVISION}-t{_CONVERTER}"
    if (target / "model.safetensors").is_file():
        return target
    source = smollm2.gguf_file()
    work: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        _convert(source, work)
        work.chmod(0o755)
        if not target.exists():
            work.rename(target)
    except OSError as error:
        if not (target / "model.safetensors").is_file():  # another process may have been first
            raise BackendUnavailable(
                f"cannot write the model cache {target.parent}: {error.strerror or error}"
            ) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
    return target


def _convert(source: Path, target: Path) -> None:
    import torch
    import transformers
    from gguf import GGUFReader
    from safetensors.torch import save_file

    fields = GGUFReader(source).fields
    end, begin, unknown = "<|im_end|>", "<|im_start|>", "<|endoftext|>"  # special tokens of the vocabulary
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=smollm2.tokenizer_from_gguf(fields),
        bos_token=begin, eos_token=end, pad_token=end, unk_token=unknown,
        model_max_length=smollm2.CONTEXT,
    )  # fmt: skip
    tokenizer.chat_template = fields["tokenizer.chat_template"].contents()
    tokenizer.save_pretrained(target)
    weights = {name: torch.from_numpy(array) for name, array in smollm2.checkpoint(source)}
    config = transformers.LlamaConfig(**smollm2.CONFIG)
    config.architectures = ["LlamaForCausalLM"]
    config.dtype = "float32"
    config.save_pretrained(target)
    (target / "source.json").write_text(
        json.dumps({"gguf_sha256": smollm2.SHA256, "converter": _CONVERTER}), encoding="utf-8"
    )
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
