"""What must not leave production in a trace: a literal table of patterns, and a hook of the user's own.

Patterns find what has a form: addresses, numbers, keys. Names and what people tell of themselves have none; for those
there is the hook, and a person who reads before anything is published. A match that a checksum refutes (Luhn for cards,
mod 97 for IBANs) is left alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, TypeAlias

from judge.errors import InputError

__all__ = ["IDS", "PATTERNS", "Redactor", "load_hook"]

Hook: TypeAlias = Callable[[str], str]


def _luhn(text: str) -> bool:
    digits = [int(letter) for letter in text if letter.isdigit()]
    if not 13 <= len(digits) <= 19:
        return False
    doubled = [
        digit if place % 2 == 0 else (2 * digit - 9 if digit > 4 else 2 * digit)
        for place, digit in enumerate(digits[::-1])
    ]
    return sum(doubled) % 10 == 0


def _iban(text: str) -> bool:
    plain = text.replace(" ", "").upper()
    turned = plain[4:] + plain[:4]
    return 15 <= len(plain) <= 34 and int("".join(str(int(letter, 36)) for letter in turned)) % 97 == 1


def _phone(text: str) -> bool:
    """8 to 15 digits, no date; without a +, a bracket or a leading 0 at least three groups of them."""
    digits = sum(letter.isdigit() for letter in text)
    groups = re.findall(r"\d+", text)
    date = re.fullmatch(r"\d{4}[-. ]\d{1,2}[-. ]\d{1,2}|\d{1,2}[-. ]\d{1,2}[-. ]\d{4}", text)
    return 8 <= digits <= 15 and not date and (text[0] in "+(0" or (len(groups) >= 3 and digits >= 9))


PATTERNS: Mapping[str, tuple[re.Pattern[str], Callable[[str], bool] | None]] = {
    "secret": (
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----"
            r"|\b(?:sk|pk|rk)[-_](?:live|test|proj|ant)?[-_A-Za-z0-9]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}"
            r"|\bAKIA[0-9A-Z]{16}\b|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bAIza[A-Za-z0-9_-]{35}"
            r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"
            r"|(?<=[Bb]earer )[A-Za-z0-9._~+/-]{16,}=*",
            re.DOTALL,
        ),
        None,
    ),
    "url_login": (re.compile(r"(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"), None),
    "email": (re.compile(r"[\w.%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\.[A-Za-z]{2,24}\b"), None),
    "iban": (re.compile(r"\b[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,4})?\b"), _iban),
    "card": (re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?!\d)"), _luhn),
    "ssn": (re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])"), None),
    "ip": (
        re.compile(
            r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])"
            r"|(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}(?![\w:])"
        ),
        None,
    ),
    "phone": (
        re.compile(
            r"(?<![\w.+-])(?:\+\d{1,3}[ .-]?)?(?:\(\d{1,4}\)[ .-]?)?\d{2,8}(?:[ .-]\d{2,8}){1,5}(?![\w-])"
            r"|(?<![\w+])\+\d{8,15}(?!\d)"
        ),
        _phone,
    ),
}  # fmt: skip
"""By name, what is looked for and, where the form alone says too little, a test that the match has to pass. In order:
a card number is none of a telephone."""


IDS = frozenset({"id", "trace_id", "at"})
"""Keys at the top of a trace that stay as they are: they name it, and say nothing about a person."""


class Redactor:
    """Replaces matches by their name in brackets (``[email]``), in every text of a row; ``counts`` says how many.

    ``hook`` is called on each text after the patterns and returns what may leave; ``patterns`` says whether ours are
    looked for.
    """

    def __init__(self, hook: Hook | None = None, *, patterns: bool = True) -> None:
        self.hook = hook
        self.patterns = PATTERNS if patterns else {}
        self.counts: Counter[str] = Counter()

    def text(self, text: str) -> str:
        """One text, redacted; raises ``InputError`` where the hook returns no text."""
        for name, (pattern, test) in self.patterns.items():
            text = pattern.sub(partial(self._instead, name, test), text)
        if self.hook is not None:
            changed = self.hook(text)
            if not isinstance(changed, str):
                raise InputError(f"the redaction hook returned {type(changed).__name__}, not text")
            self.counts["hook"] += changed != text
            text = changed
        return text

    def row(self, value: Any, *, keep: frozenset[str] = frozenset()) -> Any:
        """A row with all its texts redacted, keys of objects not; ``keep`` names keys at the top that stay (ids)."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {name: inner if name in keep else self.row(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.row(inner) for inner in value]
        return value

    def _instead(self, name: str, test: Callable[[str], bool] | None, match: re.Match[str]) -> str:
        if test is not None and not test(match[0]):
            return match[0]
        self.counts[name] += 1
        return f"[{name}]"


def load_hook(spec: str) -> Hook:
    """The function named ``module:function``; raises ``InputError`` where there is none. It is your code that runs."""
    module, colon, name = spec.partition(":")
    try:
        found = getattr(import_module(module), name) if colon and module and name else None
    except (ImportError, AttributeError) as error:
        raise InputError(f"--redact {spec}: {error}") from None
    if not callable(found):
        raise InputError(f"--redact {spec}: give MODULE:FUNCTION, a function from text to text")
    return found  # type: ignore[no-any-return]
