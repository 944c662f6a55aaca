"""Any Hugging Face causal language model as a judge, through transformers and torch, on a CPU or a CUDA device.

The verdict is read from label probabilities after the blind prompt (``labels``) or from likelihoods (``pmi-mean`` and
the other methods of ``scoring``). Only safetensors weights are loaded and no code of a repository is ever run.

A probability must not depend on what else is asked. With ``batch=1`` (the default on a CPU) every sequence is computed
alone. With a larger batch the shape of each computation is fixed by the sequence itself: its length is padded to a
multiple of 64 and the batch is filled up to the number of rows that this length always has, so a row meets the same
kernels whoever its neighbours are. Against batch 1 the results move by rounding alone: less than 1e-4 in
log-probability with float32 (tested), more with 16-bit types.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BackendUnavailable, InputError
from ..types import JudgeId
from .likelihood import LikelihoodBackend
from .measures import TEMPLATE, Budget, Request
from .scoring import METHODS, blindness

__all__ = ["HuggingFaceModel", "Template", "open_hf"]

INSTALL = "python -m pip install 'touchstone-judge[hf]'"

_SURROGATE = re.compile("[\ud800-\udfff]")
_SYSTEM, _USER, _ASSISTANT = "\ue001system\ue001", "\ue002user\ue002", "\ue003assistant\ue003"
_BUCKET = 64
_TOKENS_A_BATCH = 16_384
_CONTEXT = 8192
_OVERHEAD = 512
_PREFIXES = 2
_POSITIONS = 256
_PLAIN_CHAT = f"Request:\n{_USER}\n\nAnswer:\n"
_PLAIN_DIALOGUE = f"{_SYSTEM}\n\n{_USER}\n\nReply:"


@dataclass(frozen=True, slots=True)
class Template:
    """A model's conversation format as token ids around the places where texts go; made from its chat template, or a
    plain format.

    ``chat`` is what stands before and after a user's text; ``dialogue`` what stands before the system text, between it
    and the user's text, and after that; ``end`` is the token that ends the assistant's turn; ``plain`` says that the
    model has no chat template.
    """

    chat: tuple[list[int], list[int]]
    dialogue: tuple[list[int], list[int], list[int]]
    end: int
    plain: bool


class HuggingFaceModel:
    """A causal language model and its tokenizer, as the measures need them (``measures.TextModel``)."""

    threads = 1

    def __init__(self, model: Any, tokenizer: Any, *, batch: int) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self.batch = batch
        context = min(int(getattr(model.config, "max_position_embeddings", _CONTEXT) or _CONTEXT), _CONTEXT)
        # What is left for texts beside the template, the fences and the instruction of a prompt.
        room = max(context - _OVERHEAD, context // 4)
        self.budget = Budget(room // 4, room * 5 // 8, room // 4, room // 8, room * 3 // 16)
        self._template = _template(tokenizer)
        self.end = self._template.end
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._prefixes: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; special tokens written out in it stay plain characters."""
        clean = _SURROGATE.sub("\ufffd", text)
        ids: list[int] = self._tokenizer(clean, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def first_token(self, word: str) -> int:
        """The token with which a reply that is this word begins; after a plain prompt a space comes before it."""
        if self._template.plain:
            spaced = self.encode(f" {word}")
            if self._tokenizer.decode(spaced[:1]).strip():
                return spaced[0]
        return self.encode(word)[0]

    def chat(self, user: Sequence[int]) -> list[int]:
        """One user turn and the opening of the assistant's turn."""
        before, after = self._template.chat
        return [*before, *user, *after]

    def dialogue(self, system: Sequence[int], user: Sequence[int]) -> tuple[list[int], int]:
        """The same with a system text first, and how many tokens stand before the user's text."""
        before, between, after = self._template.dialogue
        return [*before, *system, *between, *user, *after], len(before) + len(system) + len(between)

    def logprobs(self, requests: Sequence[Request]) -> list[list[float]]:
        """Log-probabilities for each request (natural logarithms), the same whatever else is in the call."""
        groups: dict[tuple[bool, tuple[int, ...], int], list[int]] = {}
        for index, request in enumerate(requests):
            shared = tuple(request.prompt[: request.shared])
            groups.setdefault((request.choice, shared, self._padded(request)), []).append(index)
        results: dict[int, list[float]] = {}
        for (_, shared, width), indices in groups.items():
            rows = max(1, min(self.batch, _TOKENS_A_BATCH // width))
            for begin in range(0, len(indices), rows):
                part = indices[begin : begin + rows]
                filled = [requests[index] for index in part] + [requests[part[-1]]] * (rows - len(part))
                results |= dict(zip(part, self._forward(filled, shared, width), strict=False))
        return [results[index] for index in range(len(requests))]

    @property
    def dtype(self) -> str:
        """The type of the weights, for example ``float32``."""
        return str(self._model.dtype).removeprefix("torch.")

    @property
    def context(self) -> int:
        """How many tokens prompt and answer may have together."""
        return int(getattr(self._model.config, "max_position_embeddings", _CONTEXT) or _CONTEXT)

    def conversation(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Token ids of a whole conversation (``role`` and ``content`` a turn) and the opening of the assistant's turn.

        Texts are encoded as plain characters, whatever special tokens they spell. Raises ``InputError`` where the
        model's chat template takes no such conversation.
        """
        return _conversation(self._tokenizer, self._template, messages, self.encode)

    def complete(
        self,
        prompt: Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Callable[[], bool] = bool,
    ) -> tuple[str, int, str]:
        """Continue one prompt, alone: its text, its number of tokens and how it ended (``stop``, ``length``,
        ``cancelled``).

        Greedy at temperature 0, otherwise sampled from the 50 likeliest tokens with ``seed``; what the model's own
        generation settings say is not used. Where ``stop`` returns true generation ends early.
        """
        import torch
        import transformers

        ends = sorted({self.end, *([self._tokenizer.eos_token_id] if self._tokenizer.eos_token_id is not None else [])})
        settings: dict[str, Any] = {"max_new_tokens": max_tokens, "eos_token_id": ends, "pad_token_id": self.end}
        if temperature > 0:
            settings |= {"do_sample": True, "temperature": temperature, "top_k": 50}
        stopped = False

        def halt(_ids: Any, _scores: Any, **_rest: Any) -> Any:
            nonlocal stopped
            stopped = stopped or stop()
            return torch.full((1,), stopped, dtype=torch.bool, device=self._model.device)

        ids = torch.tensor([list(prompt)], device=self._model.device)
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            made = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                generation_config=transformers.GenerationConfig(**settings),
                stopping_criteria=transformers.StoppingCriteriaList([halt]),
            )[0, len(prompt) :].tolist()
        ended = bool(made) and made[-1] in ends
        text: str = self._tokenizer.decode(made[:-1] if ended else made, skip_special_tokens=True)
        return text, len(made), "stop" if ended else "cancelled" if stopped else "length"

    def _padded(self, request: Request) -> int:
        """Tokens computed for a request after the shared prefix: exact at batch 1, otherwise a multiple of 64."""
        length = len(_sequence(request)) - request.shared
        return length if self.batch == 1 else -(-length // _BUCKET) * _BUCKET

    def _forward(self, requests: Sequence[Request], shared: tuple[int, ...], width: int) -> list[list[float]]:
        import torch

        begin = len(shared)
        rests = [_sequence(request)[begin:] for request in requests]
        # Padded on the right: under causal attention nothing on the left can see the padding, so any token will do.
        ids = torch.tensor([rest + [self.end] * (width - len(rest)) for rest in rests], device=self._model.device)
        starts = [len(request.prompt) - 1 - begin for request in requests]
        lengths = [1 if request.choice else len(request.continuation) for request in requests]
        # Bounds of the logits that are computed: functions of the bucket alone where several rows share a computation
        # (a next token is always wanted in the last 64 places of its bucket).
        last = max(width - _BUCKET, 0) if requests[0].choice else 0
        low, high = (starts[0], starts[0] + lengths[0]) if len(requests) == 1 else (last, width)
        extra: dict[str, Any] = {}
        if self._keeps:
            extra["logits_to_keep"] = torch.arange(low, high, device=self._model.device)
        with torch.inference_mode():
            if shared:
                extra["past_key_values"] = self._prefix(shared, len(requests))
            logits = self._model(input_ids=ids, use_cache=bool(shared), **extra).logits
            if not self._keeps:
                logits = logits[:, low:high]
            return [
                _gather(logits[row], start - low, request)
                for row, (start, request) in enumerate(zip(starts, requests, strict=True))
            ]

    def _prefix(self, shared: tuple[int, ...], rows: int) -> Any:
        """Keys and values of a shared beginning, computed once, copied for each use; the two latest are kept."""
        import torch

        if shared not in self._prefixes:
            ids = torch.tensor([shared], device=self._model.device)
            extra = {"logits_to_keep": 1} if self._keeps else {}
            self._prefixes[shared] = self._model(input_ids=ids, use_cache=True, **extra).past_key_values
            while len(self._prefixes) > _PREFIXES:
                self._prefixes.popitem(last=False)
        self._prefixes.move_to_end(shared)
        own = copy.deepcopy(self._prefixes[shared])
        if rows > 1:
            own.batch_repeat_interleave(rows)
        return own


def open_hf(
    model: str,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    batch: int = 0,
    method: str = "labels",
) -> LikelihoodBackend:
    """Open ``hf:DIRECTORY`` or ``hf:OWNER/NAME``, for example ``hf:/models/x?method=pmi-mean&device=cuda&batch=16``.

    ``device`` auto means CUDA where there is one; ``dtype`` auto means float32 on a CPU and bfloat16 on CUDA; ``batch``
    0 means 1 on a CPU and 16 on CUDA. The revision in the judge's identity is the commit, or the digest of a
    directory's files.

    Raises:
        InputError: no model named, unknown method, device or dtype.
        BackendUnavailable: torch or transformers is missing, or the model cannot be loaded; the message says
            what to run.
    """
    if not model:
        raise InputError("hf: name a model: hf:DIRECTORY or hf:OWNER/NAME")
    if method not in METHODS:
        raise InputError(f"hf?method={method}: unknown method; choose one of {', '.join(METHODS)}")
    if dtype not in ("auto", "float32", "bfloat16", "float16"):
        raise InputError(f"hf?dtype={dtype}: choose auto, float32, bfloat16 or float16")
    if batch < 0:
        raise InputError(f"hf?batch={batch}: give a number of sequences, or 0 for the default")
    try:
        import torch
        import transformers
    except ImportError as error:
        raise BackendUnavailable(f"hf:{model} needs the package {error.name}; run: {INSTALL}") from error
    place = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?|mps", place):
        raise InputError(f"hf?device={device}: choose auto, cpu, cuda, cuda:N or mps")
    kind = dtype if dtype != "auto" else "bfloat16" if place.startswith("cuda") else "float32"
    options: dict[str, Any] = {"trust_remote_code": False} | ({"revision": revision} if revision else {})
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, **options)
        network = transformers.AutoModelForCausalLM.from_pretrained(
            model, dtype=getattr(torch, kind), use_safetensors=True, **options
        )
        network = network.to(place).eval()
    # Loading reports through many types (OSError, ValueError, safetensors' own); all of them mean: not usable here.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BackendUnavailable(f"hf:{model} cannot be loaded: {reason}") from error
    folder = Path(model)
    found = _digest(folder) if folder.is_dir() else str(getattr(network.config, "_commit_hash", "") or "")[:12]
    name = folder.resolve().name if folder.is_dir() else model
    size = batch or (16 if place.startswith("cuda") else 1)
    engine = HuggingFaceModel(network, tokenizer, batch=size)
    notice = (
        f"{name} is read by {method}; what it is worth on your data is unknown until it is calibrated against labels. "
        + blindness(method)
    ).strip()
    return LikelihoodBackend(
        engine, JudgeId(f"hf/{name}", found, f"{method}-{kind}-{TEMPLATE}"), method=method, notice=notice
    )


def _sequence(request: Request) -> list[int]:
    """The tokens whose computation answers a request: the last token of a continuation is predicted, never read."""
    return request.prompt if request.choice else request.prompt + request.continuation[:-1]


def _gather(logits: Any, start: int, request: Request) -> list[float]:
    """Log-softmax at the wanted places, in float64 (where the device has it) and in slices, so that no second copy of
    all logits is held.
    """
    import torch

    exact = torch.float32 if logits.device.type == "mps" else torch.float64
    if request.choice:
        row = torch.log_softmax(logits[start].to(exact), dim=-1)
        return [float(row[token]) for token in request.continuation]
    values: list[float] = []
    for begin in range(0, len(request.continuation), _POSITIONS):
        tokens = request.continuation[begin : begin + _POSITIONS]
        block = logits[start + begin : start + begin + len(tokens)].to(exact)
        wanted = torch.tensor(tokens, device=block.device)[:, None]
        values += (block.gather(1, wanted)[:, 0] - torch.logsumexp(block, dim=1)).tolist()
    return values


def _template(tokenizer: Any) -> Template:
    def ids(text: str) -> list[int]:
        result: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        return result

    def render(*turns: tuple[str, str], ask: bool = True) -> str:
        conversation: list[Mapping[str, str]] = [{"role": role, "content": content} for role, content in turns]
        # Models that can think aloud first would otherwise not reply with a label; other templates ignore the switch.
        text: str = tokenizer.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=ask, enable_thinking=False
        )
        return text

    if not getattr(tokenizer, "chat_template", None):
        begin = tokenizer("a")["input_ids"][:1]
        start = begin if tokenizer.bos_token_id is not None and begin == [tokenizer.bos_token_id] else []
        parts = [ids(text) for text in re.split(f"{_SYSTEM}|{_USER}", _PLAIN_CHAT)]
        both = [ids(text) for text in re.split(f"{_SYSTEM}|{_USER}", _PLAIN_DIALOGUE)]
        end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else 0
        return Template((start + parts[0], parts[1]), (start + both[0], both[1], both[2]), end, plain=True)
    chat = [ids(text) for text in render(("user", _USER)).split(_USER)]
    dialogue = _with_system(render)
    closing = ids(render(("user", _USER), ("assistant", _ASSISTANT), ask=False).partition(_ASSISTANT)[2])
    end = closing[0] if closing else tokenizer.eos_token_id
    first, second, third = (ids(text) for text in re.split(f"{_SYSTEM}|{_USER}", dialogue))
    return Template((chat[0], chat[1]), (first, second, third), end, plain=False)


def _conversation(
    tokenizer: Any, template: Template, messages: Sequence[Mapping[str, Any]], encode: Callable[[str], list[int]]
) -> list[int]:
    """The tokens of a conversation: the chat template is rendered around marks, texts are encoded apart and put in."""
    import jinja2

    marks = [f"\ue004{number}\ue004" for number in range(len(messages))]
    if template.plain:
        start, after = template.chat
        text = "\n\n".join(str(turn["content"]) for turn in messages)
        return [*start, *encode(text), *after]
    turns = [{"role": turn["role"], "content": mark} for turn, mark in zip(messages, marks, strict=True)]
    options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
    try:
        try:
            rendered: str = tokenizer.apply_chat_template(turns, **options)
        except jinja2.TemplateError:
            if len(turns) < 2 or turns[0]["role"] != "system" or turns[1]["role"] != "user":
                raise
            # A template without a system turn: its text leads the first user turn, as in ``_with_system``.
            folded = {"role": "user", "content": f"{marks[0]}\n\n{marks[1]}"}
            rendered = tokenizer.apply_chat_template([folded, *turns[2:]], **options)
    except jinja2.TemplateError as error:
        raise InputError(f"the model's chat template does not take this conversation: {error}") from None
    parts = re.split("\ue004(\\d+)\ue004", rendered)
    if [int(number) for number in parts[1::2]] != list(range(len(messages))):
        raise InputError("the model's chat template leaves out or repeats a turn of this conversation")
    ids: list[int] = []
    for number, part in enumerate(parts):
        if number % 2:
            ids += encode(str(messages[int(part)]["content"]))
        elif part:
            ids += tokenizer(part, add_special_tokens=False)["input_ids"]
    return ids


def _with_system(render: Any) -> str:
    """A rendered system and user turn; where the template knows no system turn, its text leads the user's."""
    import jinja2

    try:
        text: str = render(("system", _SYSTEM), ("user", _USER))
    except jinja2.TemplateError:
        text = ""
    if text.count(_SYSTEM) == 1 and text.count(_USER) == 1:
        return text
    folded: str = render(("user", f"{_SYSTEM}\n\n{_USER}"))
    return folded


def _digest(folder: Path) -> str:
    """First twelve hex digits of a SHA-256 over the names and contents of the files that decide what a model says."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in (".safetensors", ".json", ".jinja", ".model", ".txt"):
            digest.update(f"{path.name}:{path.stat().st_size}:".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]
