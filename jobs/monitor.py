"""What `ray job submit --working-dir . -- python jobs/monitor.py <yaml> key=value ...` runs: `raysl monitor`."""

import sys

from raysl.cli import main

if __name__ == "__main__":
    sys.exit(main(["monitor", *sys.argv[1:]]))
