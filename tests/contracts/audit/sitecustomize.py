"""Notes every file that is opened. A line is the process, a blank and the path.

Python imports this before anything else where its folder is on PYTHONPATH, and a fork has what its parent has: so it is
in every process that is started from a watched one, too.
"""

import os
import sys

_LOG = os.open(os.environ["EOSIN_AUDIT"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes):  # a number is a file that was opened before
        os.write(_LOG, f"{os.getpid()} {os.path.realpath(os.fsdecode(arguments[0]))}\n".encode())


sys.addaudithook(_note)
