"""HTML pages from the package's templates: everything is escaped unless a chart of ``charts`` made it."""

from __future__ import annotations

from importlib import resources
from typing import Any

from .words import safe

__all__ = ["page"]


def page(template: str, **values: Any) -> str:
    """One template of ``judge/templates`` filled in; unknown names are an error, every value is escaped.

    Templates mark the charts, which escape their own text, with ``|safe``, and show foreign text through
    ``safe_text``.
    """
    import jinja2

    folder = resources.files("judge").joinpath("templates")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
    )
    return environment.get_template(template).render(safe_text=safe, **values)
