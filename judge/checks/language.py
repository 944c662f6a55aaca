"""In which language, and in which shape, an answer is written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..errors import InputError
from ..types import Answer, Item, Span
from .check import Check, Observation, failed, passed, unjudged

__all__ = ["Detector", "Format", "Language", "language_of"]

Detector = Literal["py3langid", "langdetect"]
_ISO = re.compile(r"[a-z]{2}")
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_MARKDOWN = (
    ("a heading", re.compile(r"^#{1,6} \S.*$", re.MULTILINE)),
    ("a table", re.compile(r"^\|.*\|[ \t]*\n\|[ \t:|-]+\|", re.MULTILINE)),
    ("a code fence", re.compile(r"^```", re.MULTILINE)),
    ("bold text", re.compile(r"\*\*[^*\n]+\*\*")),
    ("a list", re.compile(r"^[ \t]*(?:[-*+]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)),
    ("a link", re.compile(r"\[[^\]\n]+\]\([^)\s]+\)")),
)


def language_of(text: str, detector: Detector = "py3langid") -> str:
    """The ISO 639-1 code of the language a text is most likely written in; empty where there is nothing to go by.

    ``py3langid`` (https://github.com/adbar/py3langid) is the default: offline, deterministic, 97 languages.
    ``langdetect`` is what the published IFEval outcomes were made with; it is drawn with a fixed seed here. Raises
    ``InputError`` where it is not installed.
    """
    if not any(mark.isalpha() for mark in text):
        return ""
    if detector == "langdetect":
        return _langdetect(text)
    import py3langid

    return str(py3langid.classify(text)[0])


def _is_json(text: str) -> bool:
    """Whether a text is a JSON object or array, as a tool would read it."""
    if text.strip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _langdetect(text: str) -> str:
    try:
        import langdetect
    except ImportError:
        raise InputError("the detector langdetect is not installed: pip install langdetect") from None
    langdetect.DetectorFactory.seed = 0
    try:
        return str(langdetect.detect(text))
    except langdetect.LangDetectException:
        return ""


@dataclass(frozen=True)
class Language(Check):
    """The answer is written in ``language`` (ISO 639-1), by default the item's metadata ``language`` where
    that is such a code.

    Code in fences is left out. An answer that is JSON, or nothing but code, is not concerned: keys and names are in no
    language. A text with fewer than ``least`` letters is not judged: on short texts any detector guesses.
    """

    name: ClassVar[str] = "language"
    language: str | None = None
    least: int = 40
    detector: Detector = "py3langid"

    def examine(self, item: Item, answer: Answer) -> Observation | None:
        """Detect the language."""
        wanted = self.language or item.metadata.get("language")
        if not isinstance(wanted, str) or (self.language is None and not _ISO.fullmatch(wanted)):
            return None
        text = _CODE.sub(" ", answer.text)
        if _is_json(text) or (text != answer.text and not any(mark.isalpha() for mark in text)):
            return None
        letters = sum(mark.isalpha() for mark in text)
        if letters < self.least:
            return unjudged(f"{letters} letters are too few to tell a language by (at least {self.least})")
        found = language_of(text, self.detector)
        if found == wanted.lower():
            return passed(label=found)
        return failed(f"written in {found or 'no known language'}, not in {wanted}", label=found)


@dataclass(frozen=True)
class Format(Check):
    """The answer's shape: ``plain`` text without Markdown, at most ``lines`` lines, ``paragraphs`` and ``characters``;
    ``starts`` and ``ends`` are texts it has to begin and end with.
    """

    name: ClassVar[str] = "format"
    plain: bool = False
    lines: int | None = None
    paragraphs: int | None = None
    characters: int | None = None
    starts: str = ""
    ends: str = ""

    def examine(self, item: Item, answer: Answer) -> Observation | None:
        """Look at the shape."""
        text = answer.text
        faults: list[str] = []
        spans: list[Span] = []
        if self.plain:
            for what, pattern in _MARKDOWN:
                if found := pattern.search(text):
                    faults.append(f"has {what}")
                    spans.append(Span(*found.span(), what))
        counted = (
            ("lines", self.lines, len(text.strip().splitlines())),
            ("paragraphs", self.paragraphs, sum(bool(part.strip()) for part in re.split(r"\n\s*\n", text))),
            ("characters", self.characters, len(text)),
        )
        faults += [
            f"{count} {what}, at most {limit}" for what, limit, count in counted if limit is not None and count > limit
        ]
        if self.starts and not text.lstrip().startswith(self.starts):
            faults.append(f"does not begin with {self.starts!r}")
        if self.ends and not text.rstrip().endswith(self.ends):
            faults.append(f"does not end with {self.ends!r}")
        return failed("; ".join(faults), *spans) if faults else passed()
