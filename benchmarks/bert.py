"""BERT, 4 layers of width 256 at 128 tokens, beside Hugging Face's Trainer: tokens a CPU-second in fp32 and bf16.

The real loop on packed documents that do not see each other, 8,000 WordPieces, 32 rows a step, one thread each in turns.
"""

from collections.abc import Iterator

from benchmarks import Figure
from benchmarks._train_peer import ours, ratio, theirs, why_not

TEXTS, ROUNDS, STEPS = "reviews/blitzer.jsonl.gz", 3, 40


def run() -> Iterator[Figure]:
    reason = why_not()
    if reason is not None:
        print(f"skipped: {reason}")
        return
    own, half, trainer = [], [], []
    for _ in range(ROUNDS):
        own.append(ours("bert", TEXTS, STEPS))
        half.append(ours("bert", TEXTS, 2 * STEPS, "--precision", "bf16"))
        trainer.append(theirs("bert.py", TEXTS, "trainer", STEPS // 2))
    yield Figure("tokens a CPU-second, fp32", own[-1]["per_cpu_s_p50"], "/s")
    yield Figure("tokens a CPU-second, bf16", half[-1]["per_cpu_s_p50"], "/s")
    yield Figure("over HF's Trainer, fp32", ratio(own, trainer), "x", at_least=1.4)
    yield Figure("over HF's Trainer, bf16 against its fp32", ratio(half, trainer), "x", at_least=3.2)
