"""Run the command line: `python3 -m ag_ui_backup`."""

import sys

from .commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
