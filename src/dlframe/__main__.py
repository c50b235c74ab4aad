"""`python -m dlframe`."""

import sys

from dlframe.cli import main

if __name__ == "__main__":
    sys.exit(main())
