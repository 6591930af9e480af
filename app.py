"""Serves the page and the API, as `hark serve` does: run `python app.py`, open http://127.0.0.1:7860."""

import sys
from collections.abc import Sequence

from training import commands


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; `arguments` are those of `hark serve`."""
    return commands.main(["serve", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main())
