"""``python -m eosin`` is the command line."""

from eosin.cli import main

if __name__ == "__main__":
    main()
