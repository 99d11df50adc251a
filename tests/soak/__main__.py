"""``make soak``: an hour of resets of every kind; M=5 for five minutes."""

from __future__ import annotations

import argparse
import sys

from tests.soak.run import soak


def main() -> int:
    """The exit code: 0 if nothing is missing, double or invented, and nothing grew."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=10, help="resets a second, at most")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    result = soak(options.minutes * 60, options.rate, options.seed)
    print(result.text())
    return bool(result.problems())


if __name__ == "__main__":
    sys.exit(main())
