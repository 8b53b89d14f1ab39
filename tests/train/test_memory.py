"""What a training step frees is there for the next one, in the thread of a Ray worker as well."""

import threading
from pathlib import Path

import pytest
import ray


@pytest.mark.ray
def test_large_tensors_of_a_worker_s_thread_come_from_what_it_has_freed(ray_cluster: Path) -> None:
    """200 MB, again and again: after some rounds (glibc cuts its blocks unevenly at first) no page comes from the system."""

    @ray.remote
    def faults() -> list[int]:
        import resource

        import torch

        from raysl.train.memory import keep_freed_memory

        counted = []

        def train() -> None:
            keep_freed_memory()
            for _ in range(24):
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                torch.ones(50_000_000)
                counted.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
        return counted

    rounds = ray.get(faults.remote())
    assert rounds[0] > 40_000
    assert max(rounds[-4:]) < 1_000
