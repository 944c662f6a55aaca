"""SmolLM2 at run time, on CTranslate2: log-probabilities of given tokens, of the next token, and generation.

Every number is computed with one sequence at a time on one thread, because that is the only way a number cannot depend
on its neighbours: padding a float32 batch moves log-probabilities by 1e-5, an int8 batch by up to 0.7 (rounding
amplifies it). More threads mean more sequences at once, not more threads a sequence, so the number of threads changes
nothing either.

CTranslate2: https://github.com/OpenNMT/CTranslate2 (MIT).
"""

from __future__ import annotations

import atexit
import re
import time
import weakref
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from ..environment import cores
from ..errors import BackendUnavailable
from . import smollm2
from .measures import Budget, Request, middle_cut
from .smollm2 import Compute, converted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ..types import Message

__all__ = ["END", "START", "Generation", "LanguageModel", "available_threads", "open_language_model"]

START, END = 1, 2
"""Token ids of ``<|im_start|>`` and ``<|im_end|>``."""

DEFAULT_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""What the model's own chat template puts where a conversation has no system turn."""

_SURROGATE = re.compile("[\ud800-\udfff]")
BUDGET = Budget(question=320, answer=640, system=1536, pair_question=288, pair_answer=400)
"""A pointwise sequence stays under 1,024 tokens (0.8 GB, 3 CPU-seconds at most; human answers in the gold sets have up
to 600 tokens), the pairwise prompt under 3,000, of which the system part is shared by all asks under one rubric.
"""

_SEEDED = Lock()
"""Held while sampling: the seed is one for the whole process."""

_TOGETHER = 8
_TOP_K = 50
_STATIC_PROMPTS = 4
_STATIC_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Generation:
    """One generated text; ``tokens`` counts its tokens, ``finish`` is ``stop``, ``length`` or ``cancelled``."""

    text: str
    tokens: int
    finish: str


def _close(model: weakref.ref[LanguageModel]) -> None:
    """At exit: a thread of CTranslate2 that drops its last callback while Python ends would abort the process."""
    alive = model()
    if alive is not None:
        alive.close()


def available_threads() -> int:
    """Cores this process may use, at most eight: each sequence at work can take 0.6 GB."""
    return min(cores(), 8)


class LanguageModel:
    """A loaded SmolLM2. Safe to call from several threads; ``threads`` sequences run at once."""

    def __init__(self, folder: Path, *, compute: Compute, threads: int) -> None:
        import ctranslate2
        from tokenizers import Tokenizer

        self._folder = folder
        self.compute = compute
        self.threads = threads
        self.batch = 1
        self.budget = BUDGET
        self.end = END
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        self._token = sorted(vocabulary, key=vocabulary.__getitem__)
        self._generator: Any = ctranslate2.Generator(
            str(folder), device="cpu", compute_type=compute, inter_threads=threads, intra_threads=1
        )
        self._static: set[tuple[int, ...]] = set()
        self._called_back = False

    def close(self) -> None:
        """Release the weights and end the engine's threads; nothing can be computed afterwards."""
        self._generator = None

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text. Special tokens written out in the text stay plain characters; a lone surrogate
        becomes U+FFFD.
        """
        ids: list[int] = self._tokenizer.encode(_SURROGATE.sub("\ufffd", text)).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids, special tokens left out."""
        text: str = self._tokenizer.decode([number for number in ids if number > END + 14])
        return text

    def first_token(self, word: str) -> int:
        """The token with which a reply that is this word begins."""
        return self.encode(word)[0]

    def chat(self, user: Sequence[int], *, system: str = DEFAULT_SYSTEM) -> list[int]:
        """Token ids of the chat template up to where the assistant's answer starts, around a user turn given as ids."""
        return self.system_turn(self.encode(system)) + self.user_turn(user)

    def dialogue(self, system: Sequence[int], user: Sequence[int]) -> tuple[list[int], int]:
        """System turn, user turn, opening of the assistant's turn; and the length of the system turn, in tokens."""
        before = self.system_turn(system)
        return before + self.user_turn(user), len(before)

    def logprobs(self, requests: Sequence[Request]) -> list[list[float]]:
        """Log-probabilities for each request, one sequence at a time."""
        return [
            self.next_token_logprobs(request.prompt, request.continuation, shared=request.shared)
            if request.choice
            else self.token_logprobs(request.prompt, request.continuation)
            for request in requests
        ]

    def system_turn(self, text: Sequence[int]) -> list[int]:
        """Token ids of a whole system turn."""
        return [START, *self.encode("system\n"), *text, END, *self.encode("\n")]

    def user_turn(self, text: Sequence[int]) -> list[int]:
        """Token ids of a whole user turn and the opening of the assistant's."""
        newline = self.encode("\n")
        return [START, *self.encode("user\n"), *text, END, *newline, START, *self.encode("assistant\n")]

    def token_logprobs(self, prompt: Sequence[int], continuation: Sequence[int]) -> list[float]:
        """Natural-log probability of each token of ``continuation`` after ``prompt`` (which must not be empty)."""
        names = [self._token[number] for number in (*prompt, *continuation)]
        result = self._generator.score_batch([names], max_input_length=0)[0]
        values: list[float] = result.log_probs[len(prompt) - 1 :]
        return values

    def next_token_logprobs(self, prompt: Sequence[int], wanted: Sequence[int], *, shared: int = 0) -> list[float]:
        """Log-probability of each ``wanted`` token as the next one after ``prompt``.

        The first ``shared`` tokens are computed apart and kept for later calls that start with the same tokens (at most
        four such beginnings, because CTranslate2 never forgets one: about 140 kB a token). A kept and a newly computed
        beginning give the same bits.
        """
        import numpy as np

        start = tuple(prompt[:shared])
        keep = start in self._static
        if start and not keep and len(self._static) < _STATIC_PROMPTS and len(start) <= _STATIC_TOKENS:
            self._static.add(start)
            keep = True
        step = self._generator.generate_batch(
            [[self._token[number] for number in prompt[shared:]]],
            static_prompt=[self._token[number] for number in start] or None,
            cache_static_prompt=keep,
            include_prompt_in_result=False,
            max_length=1,
            min_length=1,
            return_logits_vocab=True,
            # A token that is never asked for: CTranslate2 masks the end token's logit while min_length holds.
            end_token=self._token[16],
        )[0]
        logits = np.asarray(step.logits[0], dtype=np.float64).reshape(-1)
        top = logits.max()
        total = top + np.log(np.exp(logits - top).sum())
        return [float(logits[number] - total) for number in wanted]

    def generate(
        self,
        prompts: Sequence[str | Sequence[Message]],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_k: int = 50,
        seed: int = 0,
        system: str = DEFAULT_SYSTEM,
        batch: int = 8,
    ) -> list[Generation]:
        """Answer each prompt (a user's text, or a conversation) with at most ``max_tokens`` tokens.

        Greedy where ``temperature`` is 0, otherwise sampled from the ``top_k`` likeliest tokens; the same ``seed``,
        prompts and ``batch`` give the same texts. Unlike scores, texts may depend on ``batch``: prompts of one batch
        share matrix products.
        """
        order = sorted(range(len(prompts)), key=lambda k: (len(str(prompts[k])), k))
        groups = [order[begin : begin + batch] for begin in range(0, len(order), batch)]
        options: dict[str, Any] = {"max_length": max_tokens, "include_prompt_in_result": False}
        options["end_token"] = self._token[END]
        if temperature > 0:
            options |= {"sampling_topk": top_k, "sampling_temperature": temperature}
        with _SEEDED if temperature > 0 else nullcontext():
            generator = self._seeded(seed) if temperature > 0 else self._generator
            # Every batch is queued at once; the generator's workers take them in turn.
            queued = [
                generator.generate_batch(
                    [[self._token[t] for t in self._conversation(prompts[k], system, max_tokens)] for k in group],
                    asynchronous=True,
                    **options,
                )
                for group in groups
            ]
            made = {
                k: one.result()
                for group, batch_ in zip(groups, queued, strict=True)
                for k, one in zip(group, batch_, strict=True)
            }
        return [self._generation(made[k].sequences_ids[0], max_tokens) for k in range(len(prompts))]

    def conversation(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Token ids of a whole conversation (``role`` and ``content`` a turn) and the opening of the assistant's turn;
        nothing is cut.
        """
        led = bool(messages) and messages[0]["role"] in ("system", "developer")
        ids = [] if led else self.system_turn(self.encode(DEFAULT_SYSTEM))
        newline = self.encode("\n")
        for turn in messages:
            role = "system" if turn["role"] == "developer" else turn["role"]
            ids += [START, *self.encode(f"{role}\n"), *self.encode(turn["content"]), END, *newline]
        return [*ids, START, *self.encode("assistant\n")]

    @property
    def together(self) -> int:
        """How many prompts of one length ``complete`` computes at once without a bit of difference to one alone.

        With int8 each row of a matrix product is quantised and summed in whole numbers for itself, so rows that need no
        padding do not meet (tested); float32 kernels choose the order of their sums by the number of rows.
        """
        return _TOGETHER if self.compute == "int8" else 1

    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Callable[[], bool] = bool,
    ) -> list[tuple[Generation, float]]:
        """Continue prompts of one length, at most ``together`` of them (one where ``temperature`` is not 0), with the
        milliseconds that each took until its last token.

        Greedy at temperature 0, otherwise sampled from the 50 likeliest tokens with ``seed``: the text depends on the
        prompt, the settings and the seed alone. Where ``stop`` returns true generation ends early (``cancelled``).
        """
        options: dict[str, Any] = {"max_length": max_tokens, "include_prompt_in_result": False}
        options["end_token"] = self._token[END]
        generator = self._generator
        if temperature > 0:
            options |= {"sampling_topk": _TOP_K, "sampling_temperature": temperature}
            generator = self._alone(seed)
        ends = [0.0] * len(prompts)
        stopped = False

        def step(result: Any) -> bool:
            nonlocal stopped
            ends[result.batch_id] = time.perf_counter()
            stopped = stopped or stop()
            return stopped

        if not self._called_back:
            self._called_back = True
            atexit.register(_close, weakref.ref(self))
        begun = time.perf_counter()
        names = [[self._token[number] for number in prompt] for prompt in prompts]
        made = generator.generate_batch(names, callback=step, **options)
        found = [self._generation(one.sequences_ids[0], max_tokens) for one in made]
        if stopped:
            found = [replace(one, finish="cancelled") for one in found]
        return [(one, 1000 * max(0.0, end - begun)) for one, end in zip(found, ends, strict=True)]

    def _alone(self, seed: int) -> Any:
        """A generator of one worker, seeded: its first draw is made here, while no other thread can set the seed."""
        import ctranslate2

        with _SEEDED:
            ctranslate2.set_random_seed(seed)
            generator = ctranslate2.Generator(
                str(self._folder), device="cpu", compute_type=self.compute, inter_threads=1, intra_threads=1
            )
            generator.generate_batch([[self._token[START]]], max_length=1, sampling_topk=_TOP_K)
        return generator

    def _generation(self, ids: list[int], max_tokens: int) -> Generation:
        return Generation(self.decode(ids), len(ids), "length" if len(ids) >= max_tokens else "stop")

    def _seeded(self, seed: int) -> Any:
        """A generator whose one worker draws from this seed: CTranslate2 seeds a worker at its first draw and never
        again.
        """
        import ctranslate2

        ctranslate2.set_random_seed(seed)
        return ctranslate2.Generator(
            str(self._folder), device="cpu", compute_type=self.compute, inter_threads=1, intra_threads=self.threads
        )

    def _conversation(self, prompt: str | Sequence[Message], system: str, max_tokens: int) -> list[int]:
        room = smollm2.CONTEXT - max_tokens - 64
        if isinstance(prompt, str):
            return self.chat(middle_cut(self, prompt, room)[0], system=system)
        turns = list(prompt)
        led = bool(turns) and turns[0].role == "system"
        ids = [] if led else self.system_turn(self.encode(system))
        newline = self.encode("\n")
        for turn in turns:
            ids += [START, *self.encode(f"{turn.role}\n"), *self.encode(turn.content), END, *newline]
        return [*ids[-room:], START, *self.encode("assistant\n")]


def open_language_model(*, compute: Compute = "int8", threads: int = 0, cache: Path | None = None) -> LanguageModel:
    """Load SmolLM2, converting it on first use; ``threads`` 0 means every core this process may use (at most eight).

    Raises:
        BackendUnavailable: weights or engine are missing (the message holds the command to run), or this CPU has
            no such arithmetic.
    """
    try:
        import ctranslate2  # noqa: F401  # asked for here so that a missing engine is found before a conversion starts
        import tokenizers  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable(
            f"the embedded judge needs the package {error.name}; run: {smollm2.INSTALL_ENGINE}"
        ) from error
    folder = converted(compute, cache=cache)
    try:
        return LanguageModel(folder, compute=compute, threads=threads or available_threads())
    except ValueError as error:
        raise BackendUnavailable(
            f"this machine cannot run the embedded judge with compute={compute}: {error}"
        ) from error
