"""Run by an interpreter that has datatrove: read, filter, de-duplicate and tokenize a folder of .jsonl files.

Prints one JSON line with the number of documents that stay.
"""

import json
import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor as Local
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig

WORKERS = 2


def main(source: str, work: str, tokenizer: str) -> None:
    folder, tasks = Path(work), len(list(Path(source).glob("*.jsonl")))
    config = MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8, n_grams=5)
    filters = [
        GopherQualityFilter(), GopherRepetitionFilter(),
        C4QualityFilter(filter_no_terminal_punct=False, min_num_sentences=3),
        FineWebQualityFilter(char_duplicates_ratio=0.1),
    ]  # fmt: skip
    steps = [
        (tasks, [JsonlReader(source, doc_progress=False), *filters, JsonlWriter(f"{work}/clean", compression=None)]),
        (tasks, [JsonlReader(f"{work}/clean", doc_progress=False), MinhashDedupSignature(f"{work}/signatures", config)]),
        (14, [MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config)]),
        (1, [MinhashDedupCluster(f"{work}/buckets", f"{work}/remove", config=config)]),
        (tasks, [JsonlReader(f"{work}/clean", doc_progress=False), MinhashDedupFilter(f"{work}/remove"),
                 JsonlWriter(f"{work}/kept", compression=None)]),
        (tasks, [JsonlReader(f"{work}/kept", doc_progress=False),
                 DocumentTokenizer(f"{work}/tokens", tokenizer, eos_token="[SEP]")]),
    ]  # fmt: skip
    for number, (num_tasks, pipeline) in enumerate(steps):
        Local(pipeline, tasks=num_tasks, workers=WORKERS, logging_dir=f"{work}/log{number}").run()
    print(json.dumps({"kept": sum(len(path.read_bytes().splitlines()) for path in (folder / "kept").glob("*.jsonl"))}))


if __name__ == "__main__":
    main(*sys.argv[1:4])
