"""The JSON Schema of a suite file, for editors: its keys, and the options of every shipped check.

``python -m judge.checks.published`` writes ``judge/data/suite-1.schema.json`` anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from .registry import CHECKS, Registry
from .suite import SuiteFile

__all__ = ["PATH", "text"]

PATH = Path(__file__).parent.parent / "data" / "suite-1.schema.json"
"""The published file."""


def text() -> str:
    """The schema as it must stand in the published file."""
    schema: dict[str, Any] = SuiteFile.model_json_schema(by_alias=True)
    registry, branches = Registry(), []
    for name in CHECKS:
        kind = registry.find(name)
        options = TypeAdapter(kind).json_schema(ref_template=f"#/$defs/{name}/$defs/{{model}}")
        schema["$defs"][name] = options
        named = {"properties": {"check": {"pattern": f"^{name}(@{kind.version})?$"}}}
        branches.append({"if": named, "then": {"properties": {"with": {"$ref": f"#/$defs/{name}"}}}})
    schema["$defs"]["Entry"]["allOf"] = branches
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "A suite of checks of touchstone-judge"
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8", newline="\n")
