"""What `ray job submit --working-dir . -- python jobs/serve.py <yaml> key=value ...` runs: `raysl serve`."""

import sys

from raysl.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
