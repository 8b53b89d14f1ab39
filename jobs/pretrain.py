"""What `ray job submit --working-dir . -- python jobs/pretrain.py <yaml> key=value ...` runs: `raysl pretrain`."""

import sys

from raysl.cli import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
