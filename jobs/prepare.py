"""What `ray job submit --working-dir . -- python jobs/prepare.py <yaml> key=value ...` runs: `raysl prepare`."""

import sys

from raysl.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
