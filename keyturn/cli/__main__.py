"""`python -m keyturn.cli`: the same as `keyturn`."""

import sys

from keyturn.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
