"""What `ray job submit --working-dir . -- python jobs/update.py <yaml> key=value ...` runs: `raysl update`."""

import sys

from raysl.cli import main

if __name__ == "__main__":
    sys.exit(main(["update", *sys.argv[1:]]))
