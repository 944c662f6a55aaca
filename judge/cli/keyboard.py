"""Where a person labels: a full screen with single keys on a terminal, or plain lines where stdin is piped.

Both take the same scenes and give back the same keys. What was piped in is read line by line: every character is a key,
``n TEXT`` is a note. On a terminal scrolling stays in here, so that no text is ever cut.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import stat
import sys
import termios
import tty
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol, Self

from ..errors import InputError
from ..render.words import counted
from .screen import safe

__all__ = ["KEYS", "Face", "Lines", "Scene", "Screen", "columns", "open_face", "titled", "wrap"]

KEYS = (
    "1 first better", "2 second better", "3 tie", "4 both bad", "s skip", "u undo", "n note", "c closeness",
    "r rubric", "? help", "q quit",
)  # fmt: skip
NARROW, WIDE = 60, 200
SIDE_BY_SIDE = 120
"""From this width on the two answers stand side by side."""
_SCROLL = {" ": 1, "pgdn": 1, "b": -1, "pgup": -1}
_SEQUENCES = {
    b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down", b"\x1b[5~": "pgup", b"\x1b[6~": "pgdn",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scene:
    """What is to be seen: ``name`` tells one pair from the next, ``body`` gives its lines for a width in columns.

    ``asks`` says that the status is a question: keys typed before it was seen are no answer to it.
    """

    name: str
    header: str
    body: Callable[[int], list[str]]
    status: str = ""
    asks: bool = False


class Face(Protocol):
    """One way to show scenes and to get keys."""

    scripted: bool

    @property
    def unseen(self) -> int:
        """Lines of the scene below all that was on the screen so far."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def show(self, scene: Scene) -> None:
        """Show a scene; text of the same name is not shown anew where it cannot be redrawn."""

    def key(self) -> str:
        """The next key: a character, ``enter``, or ``eof``."""

    def ask(self, label: str, text: str) -> str | None:
        """A line of text, beginning with ``text``; ``None`` where the person gave it up."""


def open_face(*, plain: bool) -> Face:
    """A screen where stdin is a terminal, lines where something is piped in; ``InputError`` where there is neither."""
    stdin: Any = sys.stdin
    if stdin is None or stdin.closed:
        raise InputError(
            "stdin is closed: labelling needs a terminal, or keys piped in (printf '1\\n2\\n' | judge ...)"
        )
    if stdin.isatty():
        if not sys.stderr.isatty():
            raise InputError("the pairs are shown on stderr, which is no terminal here; do not redirect it")
        return Screen(plain=plain)
    mode = os.fstat(stdin.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
        raise InputError("no terminal and nothing piped in: labelling needs a person at a terminal, or keys on stdin")
    return Lines()


class Lines:
    """Keys from piped lines; every scene is printed once, in full."""

    scripted = True
    unseen = 0
    """Every scene is printed in full."""

    def __init__(self) -> None:
        self._keys = self._read()
        self._note = ""
        self._shown = ("", "")
        self.number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing to restore."""

    def show(self, scene: Scene) -> None:
        """Print a scene in full, of one that was printed already only a new status."""
        if scene.name != self._shown[0]:
            width = min(max(shutil.get_terminal_size().columns, NARROW), WIDE)
            print(f"\n{scene.header}", *scene.body(width), sep="\n", file=sys.stderr)
        if scene.status and (scene.name, scene.status) != self._shown:
            print(scene.status, file=sys.stderr)
        self._shown = (scene.name, scene.status)

    def key(self) -> str:
        """The next character that was piped in, ``eof`` after the last."""
        return next(self._keys, "eof")

    def ask(self, label: str, text: str) -> str | None:
        """What stood behind ``n`` on its line."""
        return self._note

    def _read(self) -> Iterator[str]:
        for raw in sys.stdin.buffer:
            self.number += 1
            line = raw.decode("utf-8", "replace").strip()
            if line[:2] in ("n", "n "):
                self._note = line[2:]
                yield "n"
                continue
            self._note = ""
            yield from (char.lower() for char in line if not char.isspace())


class Screen:
    """The terminal: keys without Enter, the screen redrawn on every change and resize, restored whatever happens."""

    scripted = False

    def __init__(self, *, plain: bool) -> None:
        self.plain = plain
        self._in, self._scene, self._top, self._page = sys.stdin.fileno(), Scene("", "", lambda _: []), 0, 1
        self._buffer = b""
        self._prompt: str | None = None
        self._old: dict[int, Any] = {}
        self._lines: tuple[object, list[str]] = (None, [])
        self._ended: set[str] = set()
        self._below, self._reading = 0, ("", 0)

    @property
    def unseen(self) -> int:
        """Lines of the scene that were never on the screen; 0 for good once its end was."""
        return 0 if self._scene.name in self._ended else self._below

    def __enter__(self) -> Self:
        self._saved = termios.tcgetattr(self._in)
        self._wake_in, self._wake_out = os.pipe()
        os.set_blocking(self._wake_out, False)
        self._fd_before = signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)
        for number, handler in (
            (signal.SIGWINCH, _nothing),
            (signal.SIGTSTP, self._stop),
            (signal.SIGTERM, _leave),
            (signal.SIGHUP, _leave),
        ):
            self._old[number] = signal.signal(number, handler)
        self._raw()
        return self

    def __exit__(self, *exc: object) -> None:
        self._cooked()
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        os.close(self._wake_in)
        os.close(self._wake_out)

    def show(self, scene: Scene) -> None:
        """Draw a scene, a new one from its top."""
        if scene.name != self._scene.name:
            self._top = 0
        if scene.name != self._scene.name or scene.asks:
            # A key typed before this pair, or this question, was seen is no answer to it.
            self._buffer = b""
            termios.tcflush(self._in, termios.TCIFLUSH)
        self._scene = scene
        self._draw()

    def key(self) -> str:
        """The next key that does not scroll."""
        while True:
            key = self._key()
            if key == "resize":
                self._draw()
            elif key in _SCROLL:
                self._scroll(_SCROLL[key] * self._page)
            elif key in ("up", "down", "k", "j"):
                self._scroll(1 if key in ("down", "j") else -1)
            else:
                return "eof" if key == "\x04" else key.lower()

    def ask(self, label: str, text: str) -> str | None:
        """Edit one line at the bottom: Enter keeps it, Esc gives it up, Ctrl-U empties it."""
        try:
            while True:
                self._prompt = f"{label}{text}_"
                self._draw()
                key = self._key()
                if key == "enter":
                    return text
                if key in ("esc", "eof"):
                    return None
                if key in ("\x7f", "\x08"):
                    text = text[:-1]
                elif key == "\x15":
                    text = ""
                elif len(key) == 1 and key.isprintable():
                    text += key
        finally:
            self._prompt = None

    def _scroll(self, by: int) -> None:
        self._top += by
        self._draw()

    def _draw(self) -> None:
        size = os.get_terminal_size(sys.stderr.fileno())
        # A screen narrower than 60 columns is used as it is; beyond 200 nobody reads on.
        width, height = min(max(size.columns or 80, 20), WIDE), size.lines or 24
        if self._lines[0] != (self._scene.name, self._scene.body, width):
            self._lines = ((self._scene.name, self._scene.body, width), self._scene.body(width))
        lines = self._lines[1]
        foot = wrap(self._scene.status, width)  # an empty one keeps its row, so that a hint moves no text
        foot += _menu(width) if self._prompt is None else wrap(self._prompt, width)
        # The place is widest at the end of the text; where that does not fit beside the header it goes below.
        apart = len(f"{self._scene.header}   lines {len(lines)}-{len(lines)} of {len(lines)}") > width
        head = wrap(self._scene.header, width)
        self._page = max(height - 2 - len(foot) - len(head) - apart, 3)
        self._top = min(max(self._top, 0), max(len(lines) - self._page, 0))
        shown = lines[self._top : self._top + self._page]
        left = len(lines) - self._top - len(shown)
        at = f"lines {self._top + 1}-{self._top + len(shown)} of {len(lines)}" if len(lines) > len(shown) else ""
        more = (
            f"--- {counted(left, 'more line')} below: space ---" if left else "--- end: b goes back ---" if at else ""
        )
        reading = (self._scene.name, width)
        self._below = min(self._below, left) if self._reading == reading else left
        self._reading = reading
        if not left:
            self._ended.add(self._scene.name)
        if at:
            head = [*head, at] if apart else [f"{head[0]}   {at}"]
        rows = [self._bold(line) for line in head]
        rows += [self._bold(line) if line.startswith("── ") else line for line in shown]
        rows += [""] * (self._page - len(shown)) if not self.plain else []
        rows += [more, *foot]
        start = "\n" if self.plain else "\x1b[H\x1b[2J"
        self._write(start + "\n".join(rows) + ("\n" if self.plain else ""))

    def _bold(self, text: str) -> str:
        return text if self.plain else f"\x1b[1m{text}\x1b[22m"

    def _key(self) -> str:
        """One key or ``resize``; waits for either."""
        while not self._buffer:
            ready, _, _ = select.select([self._in, self._wake_in], [], [])
            if self._wake_in in ready:
                os.read(self._wake_in, 64)
                return "resize"
            data = os.read(self._in, 1024)
            if not data:
                return "eof"
            self._buffer = data
        if self._buffer[:1] == b"\x1b":
            return self._escape()
        size = next((n for n in range(1, 5) if _decodes(self._buffer[:n])), 1)
        char, self._buffer = self._buffer[:size].decode("utf-8", "replace"), self._buffer[size:]
        return "enter" if char in "\r\n" else char

    def _escape(self) -> str:
        """The key of an escape sequence; an unknown one is swallowed whole, a lone escape is ``esc``."""
        if len(self._buffer) == 1 and select.select([self._in], [], [], 0.05)[0]:
            self._buffer += os.read(self._in, 1024)
        for sequence, name in _SEQUENCES.items():
            if self._buffer.startswith(sequence):
                self._buffer = self._buffer[len(sequence) :]
                return name
        self._buffer = b""
        return "esc"

    def _raw(self) -> None:
        tty.setcbreak(self._in, termios.TCSADRAIN)
        if not self.plain:
            self._write("\x1b[?1049h\x1b[?25l")

    def _cooked(self) -> None:
        # The terminal may be gone (a closed window); then there is nothing left to restore.
        with contextlib.suppress(OSError, termios.error):
            if not self.plain:
                self._write("\x1b[?25h\x1b[?1049l")
            termios.tcsetattr(self._in, termios.TCSADRAIN, self._saved)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        """Ctrl-Z: give the shell its terminal back, stop, and take it again when continued."""
        self._cooked()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._stop)
        self._raw()

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def _menu(width: int) -> list[str]:
    """The keys on as many lines as they need, no key apart from its name."""
    lines = [""]
    for key in KEYS:
        longer = f"{lines[-1]} · {key}" if lines[-1] else key
        lines = [*lines[:-1], longer] if len(longer) <= width else [*lines, key]
    return lines


def titled(title: str, text: str, width: int) -> list[str]:
    """A title and its text behind a bar, so that no text can pass for a title."""
    mark = "" if text.strip() else " (empty)"
    return [f"── {safe(title)}{mark} ".ljust(width, "─")[:width], *(f"│ {line}" for line in wrap(text, width - 2)), ""]


def columns(left: tuple[str, str], right: tuple[str, str], width: int) -> list[str]:
    """Two titled texts side by side, each behind its bar."""
    half = (width - 1) // 2
    sides = [titled(title, text, half) for title, text in (left, right)]
    depth = max(len(side) for side in sides)
    return [
        f"{first}{' ' * (half - sum(map(_cells, first)))} {second}".rstrip()
        for first, second in zip(*(side[:-1] + ["│"] * (depth - len(side)) + [""] for side in sides), strict=True)
    ]


def wrap(text: str, width: int) -> list[str]:
    """Text folded to a width in columns: at spaces where there are any, harmless to a terminal, nothing left out."""
    rows = []
    for line in safe(text.replace("\r\n", "\n")).split("\n"):
        rows += _folded(line.expandtabs(4), width)
    return rows


def _folded(line: str, width: int) -> list[str]:
    if line.isascii() and len(line) <= width:
        return [line]
    rows, start, gap, used = [], 0, 0, 0
    for at, char in enumerate(line):
        cells = _cells(char)
        if used + cells > width and at > start:
            cut = gap if gap > start else at
            rows.append(line[start:cut])
            start, used = cut, sum(map(_cells, line[cut:at]))
        if char == " ":
            gap = at + 1
        used += cells
    return [*rows, line[start:]]


def _cells(char: str) -> int:
    """Columns that a character takes: 2 for wide East Asian and emoji, 0 for combining marks."""
    if char.isascii():
        return 1
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _decodes(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """A signal that only has to wake the wait for a key."""


def _leave(number: int, _frame: FrameType | None) -> None:
    """End as the signal would, but through every ``finally``."""
    sys.exit(128 + number)
