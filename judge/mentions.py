"""Whether words that could be an attack are only talked about: quoted, inside code, shown as an attack, told of others.

A mention raises no flag. That is also the limit of the screen: an attack dressed as a quotation passes. So what an
answer says in its own voice, or to whoever reads it, is never a mention, and blocks and tables have to be called
attacks by the text around them.
"""

from __future__ import annotations

import re

__all__ = ["MOST_MENTIONS", "mentioned"]

_OPENING = "\"'\u201c\u2018\u00ab\u300c`\u201e"
_CLOSING = {"\u201c": "\u201d", "\u2018": "\u2019", "\u00ab": "\u00bb", "\u300c": "\u300d", "\u201e": "\u201c\u201d"}
_INTRODUCED = re.compile(
    r"(?:such as|like|e\.g\.|for example|for instance|says?|saying|said|phrases?|sentences?|writes?|wrote|written|types?|called|so-called|"
    r"attack\w*|inject\w*|malicious|adversar\w*|jailbreak\w*|manipulat\w*|trick\w*|hidden instructions?|contains?|containing|"
    r"read as|reads|tells? (?:it|them|the model|the judge|a model)|told|asks?|commands?|attempts? to|tr(?:y|ies|ying) to)\W*(?:\w+\W+){0,6}$",
    re.IGNORECASE,
)
"""What introduces something written or said by somebody else."""
_OWN_SPEECH = re.compile(
    r"\b(?:I|we|you|the (?:answer|response|reply|submission|solution)|(?:my|our|this|these|the (?:above|present|current|following)) "
    r"(?!(?:attack|inject|payload|malicious|adversar|jailbreak|hidden|exploit))\w+)\W+(?:\w+\W+){0,4}?"
    r"(?:ask|tell|told|say|said|writ|wrote|command|order|instruct|urg|call|read|contain|attempt|tr(?:y|ie)|request|trick)\w*\b",
    re.IGNORECASE,
)
"""An answer that speaks for itself, or its writer: what it asks for is no mention, whatever verb it uses."""
_TOLD = re.compile(
    r"\b(?:attack|attacker|intruder|adversary|payload|injection|text|page|document|comment|paragraph|footer|message|e-mail|web ?site|"
    r"student|pupil|author|red team|he|she|they|somebody|someone)s? (?:[\w-]+ ){0,4}?"
    r"(?:instruct|order|command|urge|persuade|convince)(?:s|e?d|ing)? (?:the|all|any|every|its?|them|a) [\w ]{0,24}\bto\W+(?:\w+\W+){0,10}$",
    re.IGNORECASE,
)
"""Indirect speech, of which somebody or something else is the subject."""
_OWN = re.compile(r"\b(?:I|we|me|us|my|our|mine|ours|this|these|you|your|yours)\b", re.IGNORECASE)
"""What indirect speech about somebody else does not hold: who writes, and who reads."""
_ATTACK = re.compile(
    r"\b(?:attack\w*|inject\w*|payloads?|malicious\w*|jailbreak\w*|adversar\w*|hidden instructions?|exploit\w*)\b",
    re.IGNORECASE,
)
"""A word that says that what is shown is an attack; "text", "line" or "example" do not."""
_DENIED = re.compile(r"\b(?:no|not|never|neither|nor|without|my|isn['\u2019]t)\b", re.IGNORECASE)
_SET_OFF = re.compile(r"(?:>| {4}|\t)")
_LOOK_BACK = 2_000
"""Characters before a match, or behind it, that say whether it is a mention: a longer search has no end."""
_SENTENCE = 400
"""Characters before a match in which its sentence begins."""
MOST_MENTIONS = 200
"""Mentions in one text; after so many every match is flagged unseen, so that no text can hold up the screen."""


def mentioned(text: str, start: int, end: int) -> bool:
    """Whether a match is talked about rather than said: quoted, inside code, in a block that is shown as an attack, or
    introduced as something written.

    Apart from the count of code fences no more than ``_LOOK_BACK`` characters on either side are read, each a fixed
    number of times.
    """
    start += len(text[start:end]) - len(text[start:end].lstrip(" \t\n>*#-`"))
    line = text.rfind("\n", max(0, start - _LOOK_BACK), start) + 1
    cut = line == 0 and start > _LOOK_BACK
    if cut:
        line = start - _LOOK_BACK
    until = text.find("\n", end, end + _LOOK_BACK)
    before, after = text[line:start], text[end : end + _LOOK_BACK if until < 0 else until]
    if cut:
        before = before.partition(" ")[2]  # a mark in the middle of a word opens nothing
    if _quoted(before, text[start:end], after) or text.count("```", 0, start) % 2 == 1:
        return True
    if not cut and _SET_OFF.match(text, line) and _shows(_above(text, line)):
        return True
    if not cut and "|" in before and _in_table(text, line):
        return True
    return _introduced(before) or _runs_into_quotation(before, text[start:end], after)


def _introduced(before: str) -> bool:
    """Whether the sentence that a match stands in introduces it as what somebody else writes or says."""
    sentence = re.split(r"[.!?]\s", before[-_SENTENCE:])[-1]
    if _INTRODUCED.search(sentence[-90:]):
        return _OWN_SPEECH.search(sentence) is None
    return _TOLD.search(sentence) is not None and _OWN.search(sentence) is None


def _shows(head: str) -> bool:
    """Whether the end of a paragraph shows an attack in the block below it."""
    last = re.split(r"[.!?]\s", head)[-1].rstrip()
    return last.endswith(":") and _names_attack(last)


def _names_attack(head: str) -> bool:
    return _ATTACK.search(head) is not None and _DENIED.search(head) is None


def _above(text: str, line: int) -> str:
    """The last line above a block that is indented or quoted, which ``line`` is the start of a line of."""
    rows = text[max(0, line - _LOOK_BACK) : line].splitlines()
    return next((row for row in reversed(rows) if row.strip() and not _SET_OFF.match(row)), "")[-200:]


def _in_table(text: str, line: int) -> bool:
    """Whether a line is a row of a Markdown table, with a head that says that it shows attacks."""
    rows = text[max(0, line - _LOOK_BACK) : line].splitlines()
    for at in range(len(rows) - 1, 0, -1):
        if "|" not in rows[at]:
            return False
        if "---" in rows[at] and not rows[at].strip("|-: \t"):
            return "|" in rows[at - 1] and _names_attack(rows[at - 1])
    return False


def _runs_into_quotation(before: str, inside: str, after: str) -> bool:
    """Whether a match that begins in talk of somebody's words ends in a quotation, which opens within it and closes
    only behind it.
    """
    at = next((at for at, mark in enumerate(inside) if mark in _OPENING and not inside[at - 1 : at].isalnum()), 0)
    if at == 0 or not inside[at + 1 : at + 2].isalnum():
        return False  # what begins with a quotation mark is forged output: a key of JSON
    closing = _CLOSING.get(inside[at], inside[at])
    if any(mark in inside[at + 1 :] for mark in closing) or not any(mark in after for mark in closing):
        return False
    return _introduced(before + inside[:at])


def _quoted(before: str, inside: str, after: str) -> bool:
    """Whether a quotation opens before a match on its line and closes after its beginning."""
    rest = inside[1:] + after
    for mark in _OPENING:
        if mark not in before:
            continue
        closing = _CLOSING.get(mark, mark)
        if mark in "\"'`":
            opened = sum(_opens(before, at, mark) for at in range(len(before)) if before[at] == mark)
            closed = sum(not _opens(before, at, mark) for at in range(len(before)) if before[at] == mark)
            if mark == "'":
                closed = len(re.findall(r"(?<=[\w.,!?])'(?!\w)", before))
            if opened > closed and re.search(rf"{re.escape(mark)}(?!\w)", rest):
                return True
        elif before.count(mark) > sum(before.count(c) for c in closing) and any(c in rest for c in closing):
            return True
    return False


def _opens(text: str, at: int, mark: str) -> bool:
    """Whether the mark at a place opens a quotation: nothing or no word before it, something after it."""
    return (at == 0 or not text[at - 1].isalnum()) and (mark != "`" or text[:at].count("`") % 2 == 0)
