"""What `ray job submit --working-dir . -- python jobs/tune.py <yaml> key=value ...` runs: `raysl tune`."""

import sys

from raysl.cli import main

if __name__ == "__main__":
    sys.exit(main(["tune", *sys.argv[1:]]))
