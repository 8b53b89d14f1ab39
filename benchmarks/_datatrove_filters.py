"""Run by an interpreter that has datatrove: decisions and CPU seconds of its filters on the texts of a .jsonl file.

Prints one JSON line. Every family sees the text as it came; `chain_seconds` is one after the other on the first rows.
"""

import json
import sys
import time
from itertools import islice

from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter


def families(repeated_line_chars: float) -> dict:
    return {
        "quality": GopherQualityFilter(), "repetition": GopherRepetitionFilter(), "c4": C4QualityFilter(),
        "fineweb": FineWebQualityFilter(char_duplicates_ratio=repeated_line_chars),
    }  # fmt: skip


def main(path: str, num_chain: int, repeated_line_chars: float) -> None:
    with open(path, encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    filters = families(repeated_line_chars)
    filters["c4"].filter(Document(text="Loads the tokenizer.", id=""))
    started = time.process_time()
    for text in islice(texts, num_chain):
        document = Document(text=text, id="")
        for one in filters.values():  # what C4 leaves is what FineWeb sees, as in raysl
            one.filter(document)
    chain_seconds = time.process_time() - started
    decisions = {
        name: [reason_of(one.filter(Document(text=text, id=""))) for text in texts] for name, one in filters.items()
    }
    chain_bytes = sum(len(text.encode()) for text in texts[:num_chain])
    print(json.dumps({"decisions": decisions, "chain_seconds": chain_seconds, "chain_bytes": chain_bytes}))


def reason_of(answer: bool | tuple[bool, str]) -> str:
    return "" if answer is True else answer[1]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
