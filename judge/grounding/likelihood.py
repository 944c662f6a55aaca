"""How surprising a claim is to the embedded language model after it has read the documents: one more feature.

Where SmolLM2-135M knows nothing about truth it still notices what does not follow on: measured on held-out news
summaries it adds to the words (docs/grounding.md has the table), at a thousand times their price. Its pointwise mutual
information, with the document minus without, adds nothing there; neither does the similarity of sentence embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from .documents import Documents, Place

if TYPE_CHECKING:
    from ..backends.language_model import LanguageModel

__all__ = ["LocalLikelihood", "Reader", "open_local", "reading"]

_LOWEST = 5
_TOKENS = 900
_CHARACTERS = 3_600
_INTRO, _MIDDLE = "Document:\n", "\n\nSummary of the document:"
_START = 1


class Reader(Protocol):
    """What can say how likely claims are: one number a claim, in nats, at most 0; higher is likelier."""

    def __call__(self, document: str, claims: Sequence[str]) -> list[float]:
        """The likelihood of each claim after the document."""
        ...


class LocalLikelihood:
    """Mean log-probability of the five least likely tokens of a claim, by SmolLM2-135M after the document.

    At most 900 tokens of the document are read. A blank claim is as unlikely as can be said: -20.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._intro, self._middle = model.encode(_INTRO), model.encode(_MIDDLE)

    def __call__(self, document: str, claims: Sequence[str]) -> list[float]:
        """See ``Reader``."""
        prompt = [_START, *self._intro, *self._model.encode(document)[:_TOKENS], *self._middle]

        def one(claim: str) -> float:
            said = self._model.encode(" " + claim)[:_TOKENS] if claim.strip() else []
            values = sorted(self._model.token_logprobs(prompt, said)) if said else []
            lowest = values[:_LOWEST]
            return max(-20.0, sum(lowest) / len(lowest)) if lowest else -20.0

        if len(claims) < 2 or self._model.threads < 2:
            return [one(claim) for claim in claims]
        with ThreadPoolExecutor(self._model.threads) as pool:
            return list(pool.map(one, claims))


def open_local() -> LocalLikelihood:
    """The embedded model, as ``local`` opens it; raises ``BackendUnavailable`` with the command that installs it."""
    from ..backends.language_model import open_language_model

    return LocalLikelihood(open_language_model(compute="int8"))


def reading(documents: Documents, place: Place | None) -> str:
    """What the model reads for one claim: all documents where they are short, else what surrounds its evidence."""
    whole = sum(len(text) for text in documents.texts)
    if whole <= _CHARACTERS:
        return "\n\n".join(documents.texts)
    if place is None:
        return documents.texts[0][:_CHARACTERS]
    text = documents.texts[place.document]
    begin = max(0, min((place.start + place.end - _CHARACTERS) // 2, len(text) - _CHARACTERS))
    return text[begin : begin + _CHARACTERS]
