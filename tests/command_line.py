"""The command line, called as a user calls it."""

from __future__ import annotations

import sys

from eosin import cli


def call(*words: object) -> int:
    """Run the command line in this process; its exit code."""
    before = sys.argv
    sys.argv = ["eosin", *map(str, words)]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0
