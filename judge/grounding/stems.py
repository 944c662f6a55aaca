"""Words made comparable: a light English stemmer."""

from __future__ import annotations

from functools import lru_cache

__all__ = ["stem"]


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """A word in lower case without its possessive, plural and the commonest verb endings: ``scored`` and ``scores``
    are ``scor``.

    Deliberately light: two words that are made equal wrongly hide a fault, two that stay apart show one that is none.
    """
    word = word.lower().replace("’", "'")
    if word.endswith("n't") and len(word) > 3:
        return "n't"
    word = word.removesuffix("'s").removesuffix("'")
    if len(word) < 4 or not word.isascii():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":
                word = word[:-1]
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word
