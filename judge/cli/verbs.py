"""A group of verbs that knows them by name and imports a verb's module when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

__all__ = ["Verbs"]


class Verbs(click.Group):
    """``table`` maps each verb to its one line of help; verb ``train`` is ``command`` of module ``<prefix>train``."""

    def __init__(self, *args: Any, table: Mapping[str, str], prefix: str = "", **attrs: Any) -> None:
        super().__init__(*args, **attrs)
        self.table, self.prefix = table, prefix

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a verb; ``None`` for a word that is none."""
        if cmd_name not in self.table:
            return None
        module = f".{self.prefix}{cmd_name.replace('-', '_')}"
        command = import_module(module, __package__).command
        assert isinstance(command, click.Command)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options of the group; one that belongs to a verb fails with where it goes."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            verb = next((word for word in args if word in self.table), "COMMAND")
            say = f"{ctx.command_path} has no option {error.option_name!r}; the options of a command go after it: "
            raise click.UsageError(f"{say}{ctx.command_path} {verb} ... {error.option_name}", ctx) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb of these arguments; a word that is none fails with the nearest verb."""
        if args and args[0] not in self.table and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], self.table, 1)
            hint = f" Did you mean {near[0]!r}?" if near else f" See all of them with `{ctx.command_path} --help`."
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.table.items()))
