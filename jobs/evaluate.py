"""What `ray job submit --working-dir . -- python jobs/evaluate.py <yaml> key=value ...` runs: `raysl evaluate`."""

import sys

from raysl.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
