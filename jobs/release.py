"""What `ray job submit --working-dir . -- python jobs/release.py <yaml> key=value ...` runs: `raysl release`."""

import sys

from raysl.cli import main

if __name__ == "__main__":
    sys.exit(main(["release", *sys.argv[1:]]))
