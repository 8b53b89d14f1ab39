"""Real English documents for benchmarks: novels in pages, PEPs and their sections, dialogues, docstrings, licence texts."""

import gzip
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from raysl.data.sources import BadRows, PythonDocs

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("RAYSL_SHARED", ROOT.parent / "shared"))
DATA = SHARED / "data"
PAGE_CHARS = 3000
"""Characters from which a page of a novel is full."""
MIN_CHARS = 200
HEADING = re.compile(r"\n(?=[^\n]+\n(?:={4,}|-{4,}|~{4,})\n)")
"""Before a heading of reStructuredText."""


def available() -> bool:
    """Whether the shared data are there; says how to name them otherwise."""
    if not DATA.is_dir():
        print(f"skipped: {DATA} is not there; set RAYSL_SHARED to the folder that holds peers/ and data/")
    return DATA.is_dir()


def pages() -> Iterator[str]:
    """The 100 novels, cut between paragraphs."""
    for path in sorted((DATA / "text" / "gutenberg").glob("*.txt.gz")):
        page: list[str] = []
        for paragraph in gzip.decompress(path.read_bytes()).decode("utf-8").split("\n\n"):
            page.append(paragraph)
            if sum(map(len, page)) >= PAGE_CHARS:
                yield "\n\n".join(page)
                page = []
        yield "\n\n".join(page)


def peps() -> Iterator[str]:
    return (row["text"] for row in _rows("text/peps.jsonl.gz"))


def pep_sections() -> Iterator[str]:
    return (section for pep in peps() for section in HEADING.split(pep) if len(section) >= MIN_CHARS)


def dialogues() -> Iterator[str]:
    """One turn in a line."""
    return ("\n".join(turn["text"] for turn in row["turns"]) for row in _rows("text/dialogues.jsonl.gz"))


def licences() -> Iterator[str]:
    return (row["text"] for row in _rows("dedup/license_texts.jsonl.gz"))


def docstrings() -> Iterator[str]:
    source = PythonDocs(PythonDocs.Config())
    for partition in source.partitions(10.0):
        for table in source.read(partition, BadRows()):
            yield from table["text"].to_pylist()


def mixture(num_documents: int = 10_000) -> list[str]:
    """The same number of each kind, drawn by a hash of the text, in a mixed order."""
    kinds = (pages(), pep_sections(), dialogues(), docstrings(), licences())
    drawn = [text for kind in kinds for text in sorted(set(kind), key=_hash)[: num_documents // len(kinds)]]
    return sorted(drawn, key=_hash)


def write_jsonl(texts: Iterable[str], path: Path, first: int = 0) -> int:
    """One document in a line, numbered from `first`; returns the bytes of text."""
    size = 0
    with open(path, "w", encoding="utf-8") as file:
        for number, text in enumerate(texts, start=first):
            file.write(json.dumps({"id": f"d{number}", "text": text}) + "\n")
            size += len(text.encode())
    return size


def _rows(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
