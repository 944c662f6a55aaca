"""Other tools' files, both ways: a literal table of formats, one module a family.

``ingest`` reads a file of another tool into rows of ours, ``export`` writes rows of ours as such a file. Nothing is
lost on the way (see ``rows``), and nothing is dropped in silence: every row that did not make it is a ``Problem`` with
file, line, kind and reason.
"""

from __future__ import annotations

from .formats import FORMATS, Format, find_format
from .moving import Moved, export, ingest
from .rows import KINDS, Options

__all__ = ["FORMATS", "KINDS", "Format", "Moved", "Options", "export", "find_format", "ingest"]
