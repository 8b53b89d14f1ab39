"""Copies what `prepare` left to an object store, so that machines that share no disk train on it."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raysl import storage
from raysl.data import transfer
from raysl.data.frequencies import FREQUENCIES, write_frequencies
from raysl.data.prepared import FACTS, TOKENS
from raysl.data.shard_facts import shard_facts
from raysl.data.sources import stores
from raysl.errors import StoreError
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
    if _said(f"{uri}/{MANIFEST}").get("files") == dict(manifest.files):
        say(f"prepare: copied already  {uri}")
        return
    there = _there(uri) if _said(f"{uri}/{COPYING}").get("content_hash") == manifest.content_hash else {}
    stores.delete(f"{uri}/{MANIFEST}")
    _send_json({"content_hash": manifest.content_hash}, folder, f"{uri}/{COPYING}")
    left = [name for name in manifest.files if there.get(name) != (folder / name).stat().st_size]
    with Progress("prepare: copy", total=len(manifest.files), unit="files") as progress:
        progress.start_at(len(manifest.files) - len(left))
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(lambda name: transfer.send(folder / name, f"{uri}/{name}"), left):
                progress.advance(1)
    _send_facts(folder, manifest, uri)
    _send_json(vars(manifest), folder, f"{uri}/{MANIFEST}")
    stores.delete(f"{uri}/{COPYING}")
    say(f"prepare: copied to {uri}")


def _send_facts(folder: Path, manifest: Manifest, uri: str) -> None:
    """What a node needs to know before it fetches the first shard."""
    facts: dict[str, dict[str, Any]] = {}
    for name in manifest.files:
        parent, _, file = name.rpartition("/")
        if file.startswith("shard-") and file.endswith(".arrow"):
            facts.setdefault(parent, {})[file] = asdict(shard_facts(folder / name))
    _send_json(facts, folder, f"{uri}/{FACTS}")
    if (folder / TOKENS).is_dir():
        with _scratch(folder) as path:
            write_frequencies(folder, path)
            transfer.send(path, f"{uri}/{FREQUENCIES}")


def _send_json(data: Any, folder: Path, uri: str) -> None:
    with _scratch(folder) as path:
        storage.write_json(path, data)
        transfer.send(path, uri)
