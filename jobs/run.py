"""What `ray job submit --working-dir . -- python jobs/run.py <yaml> key=value ...` runs: `raysl run`."""

import sys

from raysl.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
