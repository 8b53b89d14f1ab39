"""GPT, 4 layers of width 128, beside Hugging Face: tokens a CPU-second, and the loss on tinyshakespeare's characters.

The real loop on token shards against `GPT2LMHeadModel` in a bare loop and in HF's Trainer, in turns on one thread each.
"""

from collections.abc import Iterator

from benchmarks import Figure
from benchmarks._train_peer import ours, ratio, theirs, why_not

TEXT, ROUNDS, STEPS = "text/tinyshakespeare.txt", 3, 150


def run() -> Iterator[Figure]:
    reason = why_not()
    if reason is not None:
        print(f"skipped: {reason}")
        return
    own, model, trainer = [], [], []
    for _ in range(ROUNDS):
        own.append(ours("gpt", TEXT, STEPS))
        model.append(theirs("gpt.py", TEXT, "model", STEPS))
        trainer.append(theirs("gpt.py", TEXT, "trainer", STEPS))
    yield Figure("tokens a CPU-second", own[-1]["per_cpu_s_p50"], "/s")
    yield Figure("over HF's GPT2LMHeadModel in a bare loop", ratio(own, model), "x", at_least=1.2)
    yield Figure("over HF's Trainer", ratio(own, trainer), "x", at_least=1.3)
    yield Figure("held-out loss after 2,000 steps", ours("gpt", TEXT, 2000)["val_loss"], "nats", at_most=1.9)
