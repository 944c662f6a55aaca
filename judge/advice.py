"""Commands that people are told to run next: they work when they are pasted.

Every command that this project advises is made by ``advised``, or completed by ``homed`` where it stands in a
sentence of a module that does not know where it runs. Both add ``--home`` where the user gave one, to the verbs that
take it. The home is that of the command that is running (``note_home``, which only the command line and the dashboard
call): advice is for the shell that it is printed in, and nothing but what is shown may depend on it.
"""

from __future__ import annotations

import re
import shlex

__all__ = ["HOMELESS", "VERBS", "advised", "homed", "note_home", "parted", "unbroken"]

_home = ""

VERBS = (
    "calibrate", "cases", "check", "compare", "demo", "doctor", "export", "gate", "generate", "ground", "hack",
    "ingest", "label", "loop", "probe", "rank", "recover", "report", "resume", "rollout", "rubric", "run",
    "segments", "tune", "view",
)  # fmt: skip
"""The verbs of the command line."""
HOMELESS = frozenset(("cases write", "compare", "gate policy", "generate", "ingest", "rubric"))
"""Verbs without a home folder; ``rubric`` with everything below it."""

_QUOTED = re.compile(rf"`(judge (?:{'|'.join(VERBS)})\b[^`\n]*)`")
_BARE = re.compile(
    rf"(?:(?<=: )|(?<=\()|(?<=then )|(?<=, or )|(?<=run )|^)(judge (?:{'|'.join(VERBS)})\b(?:'[^'\n]*'|[^,;()'`\n])*)",
    re.MULTILINE,
)

_PATH = re.compile(r"^(?:~|\.{0,2}/)[^:\n]*(?=:)", re.MULTILINE)
"""The file that a message begins with."""


def note_home(home: str | None) -> None:
    """From now on, ``home`` is what the user gave with ``--home`` (``None``: nothing), in every thread of the process:
    a page is drawn in several.
    """
    global _home  # noqa: PLW0603 - a process is one command, or one dashboard of one home
    _home = home or ""


def advised(*words: object, seed: int = 0) -> str:
    """A command to paste: ``judge`` and the words, quoted as a shell needs it, the seed where it is not the usual one,
    and the home folder where the user gave one.

    >>> note_home("my runs")
    >>> advised("report", "r-1", "--html", "a b.html")
    "judge report r-1 --html 'a b.html' --home 'my runs'"
    >>> note_home(None)
    """
    given = [str(word) for word in words]
    given += ["--seed", str(seed)] if seed else []
    return _with_home(shlex.join(["judge", *given]))


def homed(text: str) -> str:
    """A sentence whose commands name the home folder that the user gave.

    Found are commands in backticks, and those at the start of a line, after a colon, an opening bracket, "run", "then"
    or "or".

    >>> note_home("h")
    >>> homed("not finished: judge resume r-1, or look at `judge report r-1`")
    'not finished: judge resume r-1 --home h, or look at `judge report r-1 --home h`'
    >>> note_home(None)
    """
    if not _home:
        return text
    for pattern in (_QUOTED, _BARE):
        text = pattern.sub(lambda found: found[0].replace(found[1], _with_home(found[1])), text)
    return text


def parted(text: str) -> list[tuple[str, bool]]:
    """A sentence in pieces, each with whether it is a command: for whoever breaks lines, and must break none of those.

    >>> parted("read p7; to see it: judge view r-1")
    [('read p7; to see it:', False), ('judge view r-1', True)]
    """
    pieces, at = [], 0
    for found in sorted((*_QUOTED.finditer(text), *_BARE.finditer(text)), key=lambda match: match.start(1)):
        if found.start(1) >= at:
            command = found[1].rstrip(" .")
            pieces += [(text[at : found.start(1)], False), (command, True)]
            at = found.start(1) + len(command)
    pieces.append((text[at:], False))
    return [(piece.strip(" `,;"), command) for piece, command in pieces if piece.strip(" `,;.)")]


def unbroken(text: str) -> list[str]:
    """The words of a line between which it may be broken: a command, and a path that it begins with, are one each.

    >>> unbroken("/my runs/a.jsonl: no such file; see: judge report --list")
    ['/my runs/a.jsonl:', 'no', 'such', 'file;', 'see:', 'judge report --list']
    """
    for pattern in (_PATH, _QUOTED, _BARE):
        text = pattern.sub(
            lambda found: found[0].rstrip().replace(" ", "\0") + found[0][len(found[0].rstrip()) :], text
        )
    return [word.replace("\0", " ") for word in text.split()]


def _with_home(command: str) -> str:
    home = _home
    bare = command.rstrip(" .")
    verb = bare.split()[1:3]
    if not home or "--home" in command or verb[0] in HOMELESS or " ".join(verb) in HOMELESS:
        return command
    return f"{bare} --home {shlex.quote(home)}{command[len(bare) :]}"
