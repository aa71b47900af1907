"""The command line: parse, one call, print. Everything heavy is imported by the verb that needs it."""

from eosin.cli.commands import What, app, main

__all__ = ["What", "app", "main"]
