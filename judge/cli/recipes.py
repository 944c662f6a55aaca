"""``--recipe FILE``: the options of a command as a YAML file that can be kept beside the data and read in a review."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

__all__ = ["recipe_option"]

_NEVER = ("recipe", "help", "home", "as_json")
"""What belongs to a call and to no recipe."""


def _read(ctx: click.Context, _option: click.Parameter, path: Path | None) -> Path | None:
    """Take the file's values as the defaults of the call: what the command line says stands before them."""
    from rubrics.source import read_yaml

    from ..errors import InputError

    if path is None:
        return None
    data = read_yaml(path.read_bytes(), str(path)).data
    known = {_name(option): option for option in ctx.command.params if option.name not in _NEVER}
    found: dict[str, Any] = {}
    for key, value in data.items():
        if key not in known:
            near = get_close_matches(str(key), known, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(sorted(known))}"
            raise InputError(f"{path}: {key}: unknown key; {hint}")
        option = known[key]
        if isinstance(value, list) != (option.multiple or option.nargs != 1):
            wanted = "a list" if not isinstance(value, list) else "one value, no list"
            raise InputError(f"{path}: {key}: give {wanted}")
        found[str(option.name)] = value
    ctx.default_map = {**(ctx.default_map or {}), **found}
    return path


def _name(option: click.Parameter) -> str:
    """How a recipe calls a parameter: the long option without its dashes, an argument by its name."""
    if isinstance(option, click.Argument):
        return str(option.name)
    return next(text for text in option.opts if text.startswith("--")).removeprefix("--")


recipe_option = click.option(
    "--recipe", type=click.Path(dir_okay=False, exists=True, path_type=Path), is_eager=True, expose_value=False,
    callback=_read, help="Options from a YAML file (`against: [evals.jsonl]`); those given here stand before it.",
)  # fmt: skip
