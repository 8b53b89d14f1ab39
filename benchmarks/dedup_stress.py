"""Peak memory of near-duplicate removal on one huge document and on thousands of near-copies of one page."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import Figure

ROOT = Path(__file__).parents[1]
SCRIPT = r"""
import json, re, sys, time
import numpy as np
import pyarrow as pa
from raysl.data import minhash
random = np.random.default_rng(0)
words = np.array([f"w{n:x}" for n in range(100_000)])
def page(num):
    return " ".join(words[random.integers(0, len(words), num)])
if sys.argv[1] == "long":
    texts = [page(200) for _ in range(500)] + [page(10_000_000 // 6)]
else:
    template = page(400).split()
    texts = [page(200) for _ in range(4000)]
    for number in range(8000):
        copy = list(template)
        for place in random.integers(0, len(copy), 3):
            copy[place] = words[random.integers(len(words))]
        texts.append(" ".join(copy))
column = pa.array(texts)
del texts
started = time.process_time()
found = minhash.deduplicate(column, compiled=sys.argv[2] == "numba")
seconds = time.process_time() - started
peak = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) * 1024 / 1e6
print(json.dumps({"mb": peak, "seconds": seconds, "removed": len(found.removed)}))
"""


def run() -> Iterator[Figure]:
    """The whole process counts, with Python, Arrow and the texts themselves."""

    names = {"long": "500 documents and one of 10 MB", "hot": "4,000 and 8,000 near-copies of one page"}
    for kernel in ("numba", "numpy"):
        for kind, name in names.items():
            command = [sys.executable, "-c", SCRIPT, kind, kernel]
            subprocess.run(command, cwd=ROOT, capture_output=True, check=True)  # compiled code is kept for the next one
            done = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
            yield Figure(f"{name}, {kernel}", done["mb"], "MB", at_most=500)
            print(f"  {done['seconds']:.1f} CPU-s, {done['removed']:,} removed")
