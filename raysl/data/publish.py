"""Copies what `prepare` left to an object store, so that machines that share no disk train on it."""

import json
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raysl import storage
from raysl.data import statistics, transfer
from raysl.data.prepared import FACTS, STATISTICS
from raysl.data.shard_facts import shard_facts
from raysl.data.sources import stores
from raysl.errors import DataError
from raysl.progress import Progress, say
from raysl.stage import MANIFEST, Manifest

COPYING = "copying.json"
"""In the store while a copy is under way: the content hash of what is copied."""
THREADS = 8


def publish(folder: Path, manifest: Manifest, uri: str) -> None:
    """Copies all outputs in `folder` to `uri`, the manifest last; nothing where the same outputs are there.

    Started again after it was killed, it goes on with the files that are not there yet.
    """
    uri = uri.rstrip("/")
    found = {file.name: file.size for file in _files(uri)}
    if _said(f"{uri}/{MANIFEST}", found).get("files") == dict(manifest.files):
        say(f"prepare: copied already  {uri}")
        return
    goes_on = _said(f"{uri}/{COPYING}", found).get("content_hash") == manifest.content_hash
    there = found if goes_on else {}
    stores.delete(f"{uri}/{MANIFEST}")
    if not goes_on:  # files of an earlier copy and of equal size would count as sent, should this one be broken off
        for name in found.keys() & manifest.files.keys():
            stores.delete(f"{uri}/{name}")
    _send_json({"content_hash": manifest.content_hash}, f"{uri}/{COPYING}")
    left = [name for name in manifest.files if there.get(name) != (folder / name).stat().st_size]
    with Progress("prepare: copy", total=len(manifest.files), unit="files") as progress:
        progress.start_at(len(manifest.files) - len(left))
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(lambda name: transfer.send(folder / name, f"{uri}/{name}"), left):
                progress.advance(1)
    _send_facts(folder, manifest, uri)
    _send_json(vars(manifest), f"{uri}/{MANIFEST}")
    stores.delete(f"{uri}/{COPYING}")
    say(f"prepare: copied to {uri}")


def _send_facts(folder: Path, manifest: Manifest, uri: str) -> None:
    """What a node needs to know before it fetches the first shard."""
    facts: dict[str, dict[str, Any]] = {}
    for name in manifest.files:
        parent, _, file = name.rpartition("/")
        if file.startswith("shard-") and file.endswith(".arrow"):
            facts.setdefault(parent, {})[file] = asdict(shard_facts(folder / name))
    _send_json(facts, f"{uri}/{FACTS}")
    _send_json(asdict(statistics.count(folder)), f"{uri}/{STATISTICS}")


def _send_json(data: Any, uri: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.json"
        storage.write_json(path, data)
        transfer.send(path, uri)


def _said(uri: str, found: Mapping[str, int]) -> dict[str, Any]:
    """What a JSON file in the store says; nothing where it is not there."""
    return dict(json.loads(transfer.read(uri))) if uri.rpartition("/")[2] in found else {}


def _files(uri: str) -> list[stores.StoredFile]:
    try:
        return stores.find(uri)
    except DataError:
        return []
