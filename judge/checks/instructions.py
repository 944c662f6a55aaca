"""Verifiable instructions: what a prompt asks for that a program can see, after IFEval (Zhou et al. 2023, arXiv
2311.07911).

The 25 kinds, their names and parameters are those of the public list, so that its files run as they are; each is a
function of the text alone. ``loose`` forgives what wrappers add: an instruction is followed if any of eight readings
follows it (without the first line, without the last, without both, each with and without asterisks).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, ClassVar, Literal

from ..errors import InputError
from ..types import Answer, Item
from .check import Check, Observation, failed, passed, unjudged
from .language import Detector, language_of
from .sentences import capital_words, sentences, words

__all__ = ["INSTRUCTIONS", "Instructions", "follows", "readings"]

Arguments = Mapping[str, Any]
Relation = Literal["less than", "at least"]


def _holds(count: int, relation: Relation, wanted: int) -> bool:
    return count < wanted if relation == "less than" else count >= wanted


def _keywords(text: str, *, keywords: Sequence[str]) -> bool:
    return all(_pattern(word).search(text) for word in keywords)


def _keyword_frequency(text: str, *, keyword: str, frequency: int, relation: Relation) -> bool:
    return _holds(len(_pattern(keyword.strip()).findall(text)), relation, frequency)


def _forbidden_words(text: str, *, forbidden_words: Sequence[str]) -> bool:
    return not any(_pattern(rf"\b{word}\b").search(text) for word in forbidden_words)


@lru_cache(maxsize=4096)
def _pattern(word: str) -> re.Pattern[str]:
    """A keyword as the list has it, a pattern; one that is none is taken as plain text."""
    try:
        return re.compile(word, re.IGNORECASE)
    except re.error:
        return re.compile(re.escape(word), re.IGNORECASE)


def _letters(text: str, *, letter: str, let_frequency: int, let_relation: Relation) -> bool:
    return _holds(text.lower().count(letter.strip().lower()), let_relation, let_frequency)


def _paragraphs(text: str, *, num_paragraphs: int) -> bool:
    parts = re.split(r"\s?\*\*\*\s?", text)
    if any(not part.strip() for part in parts[1:-1]):
        return False
    edges = {0, len(parts) - 1}
    return len(parts) - sum(not parts[place].strip() for place in edges) == num_paragraphs


def _words(text: str, *, num_words: int, relation: Relation) -> bool:
    return _holds(len(words(text)), relation, num_words)


def _sentences(text: str, *, num_sentences: int, relation: Relation) -> bool:
    return _holds(len(sentences(text)), relation, num_sentences)


def _nth_first_word(text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    parts = text.split("\n\n")
    filled = sum(bool(part.strip()) for part in parts)
    if nth_paragraph > filled or not parts[nth_paragraph - 1].strip():
        return False
    word = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    first = re.split(r"[.,?!'\"]", word, maxsplit=1)[0].lower()
    return filled == num_paragraphs and first == first_word.lower()


def _postscript(text: str, *, postscript_marker: str) -> bool:
    marker = postscript_marker.strip()
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(known.get(marker, marker.lower()), text.lower()) is not None


def _placeholders(text: str, *, num_placeholders: int) -> bool:
    # Up to the last bracket that closes on a line: an open one behind it would be looked for to the end of the line.
    lines = (line[: line.rfind("]") + 1] for line in text.split("\n"))
    return sum(len(re.findall(r"\[[^\]]*\]", line)) for line in lines) >= num_placeholders


def _bullets(text: str, *, num_bullets: int) -> bool:
    stars = re.findall(r"^[^\S\n]*\*[^\*].*$", text, re.MULTILINE)
    dashes = re.findall(r"^[^\S\n]*-.*$", text, re.MULTILINE)
    return len(stars) + len(dashes) == num_bullets


_CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def _constrained(text: str) -> bool:
    return any(choice in text.strip() for choice in _CONSTRAINED)


def _highlights(text: str, *, num_highlights: int) -> bool:
    single = sum(bool(part.strip("*").strip()) for part in re.findall(r"\*[^\n\*]*\*", text))
    double = sum(bool(part[2:-2].strip()) for part in re.findall(r"\*\*[^\n\*]*\*\*", text))
    return single + double >= num_highlights


def _sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"\s?{section_spliter.strip()}\s?\d+\s?", text)) >= num_sections


def _json(text: str) -> bool:
    inner = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        inner = inner.removeprefix(fence)
    try:
        json.loads(inner.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str) -> bool:
    return any(title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", text))


def _two_responses(text: str) -> bool:
    parts = text.split("******")
    if any(not part.strip() for part in parts[1:-1]):
        return False
    given = [part.strip() for part in parts if part.strip()]
    return len(given) == 2 and given[0] != given[1]


def _repeats(text: str, *, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _ends(text: str, *, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _quoted(text: str) -> bool:
    inner = text.strip()
    return len(inner) > 1 and inner[0] == inner[-1] == '"'


def _no_comma(text: str) -> bool:
    return "," not in text


def _capital_frequency(text: str, *, capital_frequency: int, capital_relation: Relation) -> bool:
    return _holds(capital_words(text), capital_relation, capital_frequency)


def _language(text: str, detector: Detector, *, language: str) -> bool:
    return language_of(text, detector) == language


def _capitals(text: str, detector: Detector) -> bool:
    return text.isupper() and language_of(text.lower() if detector == "py3langid" else text, detector) == "en"


def _lowercase(text: str, detector: Detector) -> bool:
    return text.islower() and language_of(text, detector) == "en"


INSTRUCTIONS: Mapping[str, tuple[Callable[..., bool], tuple[str, ...]]] = {
    "keywords:existence": (_keywords, ("keywords",)),
    "keywords:frequency": (_keyword_frequency, ("keyword", "frequency", "relation")),
    "keywords:forbidden_words": (_forbidden_words, ("forbidden_words",)),
    "keywords:letter_frequency": (_letters, ("letter", "let_frequency", "let_relation")),
    "language:response_language": (_language, ("language",)),
    "length_constraints:number_sentences": (_sentences, ("num_sentences", "relation")),
    "length_constraints:number_paragraphs": (_paragraphs, ("num_paragraphs",)),
    "length_constraints:number_words": (_words, ("num_words", "relation")),
    "length_constraints:nth_paragraph_first_word": (
        _nth_first_word,
        ("num_paragraphs", "nth_paragraph", "first_word"),
    ),
    "detectable_content:number_placeholders": (_placeholders, ("num_placeholders",)),
    "detectable_content:postscript": (_postscript, ("postscript_marker",)),
    "detectable_format:number_bullet_lists": (_bullets, ("num_bullets",)),
    "detectable_format:constrained_response": (_constrained, ()),
    "detectable_format:number_highlighted_sections": (_highlights, ("num_highlights",)),
    "detectable_format:multiple_sections": (_sections, ("section_spliter", "num_sections")),
    "detectable_format:json_format": (_json, ()),
    "detectable_format:title": (_title, ()),
    "combination:two_responses": (_two_responses, ()),
    "combination:repeat_prompt": (_repeats, ("prompt_to_repeat",)),
    "startend:end_checker": (_ends, ("end_phrase",)),
    "startend:quotation": (_quoted, ()),
    "change_case:capital_word_frequency": (_capital_frequency, ("capital_frequency", "capital_relation")),
    "change_case:english_capital": (_capitals, ()),
    "change_case:english_lowercase": (_lowercase, ()),
    "punctuation:no_comma": (_no_comma, ()),
}
"""Each instruction by its public name: the function of a text, and the arguments it needs."""

_DETECTING = (_language, _capitals, _lowercase)


def follows(
    text: str, instruction: str, arguments: Arguments, *, loose: bool = False, detector: Detector = "py3langid"
) -> bool:
    """Whether a text follows one instruction. An empty answer follows none.

    Raises ``InputError`` for an unknown instruction, an argument that is missing or unknown, or one of a wrong kind.
    """
    if instruction not in INSTRUCTIONS:
        near = get_close_matches(instruction, INSTRUCTIONS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"unknown instruction {instruction!r}{hint}")
    test, names = INSTRUCTIONS[instruction]
    given = {name: value for name, value in arguments.items() if value is not None}
    if set(given) != set(names):
        wrong = sorted(set(given) ^ set(names))
        raise InputError(f"instruction {instruction}: it takes {', '.join(names) or 'nothing'}; see {', '.join(wrong)}")
    extra = (detector,) if test in _DETECTING else ()
    try:
        return any(bool(one.strip()) and test(one, *extra, **given) for one in (readings(text) if loose else (text,)))
    except (TypeError, AttributeError) as error:
        raise InputError(f"instruction {instruction}: an argument is of a wrong kind ({error})") from None


def readings(text: str) -> tuple[str, ...]:
    """The eight readings of an answer that the loose mode tries."""
    lines = text.split("\n")
    cut = (
        text,
        "\n".join(lines[1:]).strip(),
        "\n".join(lines[:-1]).strip(),
        "\n".join(lines[1:-1]).strip(),
    )
    return (*cut, *(one.replace("*", "") for one in cut))


@dataclass(frozen=True)
class Instructions(Check):
    """The answer follows every verifiable instruction: ``instructions`` as a list of ``{"id": NAME, argument: value}``.

    Without them the item's metadata says which, as the public files do (``instruction_id_list`` and ``kwargs``).
    ``detector`` names what recognises languages; the published outcomes were made with ``langdetect``.
    """

    name: ClassVar[str] = "instructions"
    axis: ClassVar[str] = "capability"
    instructions: tuple[dict[str, Any], ...] = ()
    loose: bool = False
    detector: Detector = "py3langid"

    def __post_init__(self) -> None:
        """Refuse an unknown instruction before any answer is read."""
        for one in self.instructions:
            follows("", str(one.get("id")), {name: value for name, value in one.items() if name != "id"})

    def examine(self, item: Item, answer: Answer) -> Observation | None:
        """Try each instruction."""
        wanted = self._wanted(item)
        if wanted is None:
            return None
        if isinstance(wanted, str):
            return unjudged(wanted)
        broken = [
            name
            for name, arguments in wanted
            if not follows(answer.text, name, arguments, loose=self.loose, detector=self.detector)
        ]
        kept = 1 - len(broken) / len(wanted)
        return failed(f"does not follow {', '.join(broken)}", value=kept) if broken else passed(value=kept)

    def _wanted(self, item: Item) -> list[tuple[str, Arguments]] | str | None:
        if self.instructions:
            return [
                (str(one["id"]), {name: value for name, value in one.items() if name != "id"})
                for one in self.instructions
            ]
        names, arguments = item.metadata.get("instruction_id_list"), item.metadata.get("kwargs", ())
        if not names:
            return None
        if not isinstance(names, list) or not isinstance(arguments, list) or len(names) != len(arguments):
            return "instruction_id_list and kwargs are not lists of one length"
        return list(zip(map(str, names), arguments, strict=True))
