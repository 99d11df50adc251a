"""``python -m rsttrace``."""

from rsttrace.cli import main

if __name__ == "__main__":
    main()
