"""What `ray job submit --working-dir . -- python jobs/finetune.py <yaml> key=value ...` runs: `raysl finetune`."""

import sys

from raysl.cli import main

if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))
