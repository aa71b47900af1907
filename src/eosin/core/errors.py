"""Errors a user can mend. Each carries one line that names the file, the value and the mend."""

from __future__ import annotations


class EosinError(Exception):
    """Something failed in a way that the user can understand; the command line exits with 1."""

    exit_code = 1


class WrongUse(EosinError):
    """The call itself was wrong (an unknown name, a missing option); the command line exits with 2."""

    exit_code = 2


class Stale(EosinError):
    """A finished step was made by other settings, and nothing was overwritten."""


def nearest(name: str, known: list[str]) -> str:
    """Say which known name was probably meant, as ``" (did you mean 'x'?)"``, or list them, twenty at most."""
    from difflib import get_close_matches

    if close := get_close_matches(name, known, n=1):
        return f" (did you mean {close[0]!r}?)"
    more = f" and {len(known) - 20} more" if len(known) > 20 else ""
    return f" (known: {', '.join(sorted(known)[:20])}{more})" if known else ""
