"""The JSON Schema of a rubric's front matter, for editors; ``python -m rubrics.schema`` writes ``rubric.schema.json``
anew.
"""

from __future__ import annotations

import json
from pathlib import Path

from .model import FrontMatter

__all__ = ["PATH", "text"]

PATH = Path(__file__).with_name("rubric.schema.json")
"""The published file."""


def text() -> str:
    """The schema as it must stand in the published file."""
    schema = FrontMatter.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Front matter of a touchstone-judge rubric"
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8", newline="\n")
