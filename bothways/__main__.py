"""`python -m bothways`: the command line."""

import sys

from bothways.cli import main

if __name__ == "__main__":
    sys.exit(main())
