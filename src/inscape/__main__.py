"""`python -m inscape` is the command `inscape`."""

import sys

from inscape.cli import main

if __name__ == "__main__":
    sys.exit(main())
