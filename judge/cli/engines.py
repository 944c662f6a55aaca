"""Where calls are made from: this process, or workers on a Ray cluster; what ``run`` and ``resume`` share of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ..environment import calm_ray
from .screen import safe

if TYPE_CHECKING:
    from ..backends import Backend
    from ..environment import Environment

__all__ = ["engine_options", "opener"]

_OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(["asyncio", "ray"]),
        default="asyncio",
        show_default=True,
        help="Call from this process, or from workers on a Ray cluster.",
    ),
    click.option("--workers", type=click.IntRange(1, 1_000), help="With --engine ray: how many workers.  [default: 2]"),
    click.option(
        "--ray-address",
        metavar="ADDRESS",
        help="With --engine ray: auto (the default), HOST:PORT of the head, or local.",
    ),
)


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--engine``, ``--workers`` and ``--ray-address``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def opener(
    env: Environment, *, engine: str = "asyncio", workers: int | None = None, ray_address: str | None = None
) -> Callable[[str], Backend]:
    """What opens a judge string for this engine; judges opened by the same opener share one cluster."""
    from ..backends import open_backend

    if engine == "asyncio":
        if workers is not None or ray_address is not None:
            raise click.UsageError("--workers and --ray-address belong to --engine ray")
        return lambda spec: open_backend(spec, env)
    from ..backends.ray_workers import Cluster, open_on_ray

    cluster = Cluster(ray_address or "auto", workers=workers or 2)
    calm_ray(secrets.token_hex(32) if cluster.local else "")
    return lambda spec: open_on_ray(spec, env, cluster, tell=_tell)


def _tell(sentence: str) -> None:
    click.echo(f"note: {safe(sentence)}", err=True)
