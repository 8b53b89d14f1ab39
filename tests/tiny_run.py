"""A tiny trained run: three topics with words of their own, a tokenizer, an encoder of one layer and a fitted head."""

import fcntl
import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from raysl import run_config, schema
from raysl.data.config import DeduplicateConfig
from raysl.data.dedup import write_index_settings
from raysl.data.prints import PrintSettings, make_prints, write_prints
from raysl.models import load
from raysl.models.config import BertConfig, GptConfig
from raysl.models.heads import Classifier
from raysl.models.text import Bert, Gpt
from raysl.release.release import release
from raysl.release.runtime import TextRunner, padded
from raysl.run_config import RunConfig
from raysl.stage import Stage
from raysl.storage import hash_folder, write_json

TOPICS = {
    "network": "socket packet port server client address router",
    "numbers": "matrix vector sum product inverse root norm",
    "files": "folder path open read write delete rename",
}
COMMON = ["the", "a", "returns", "of", "when", "given", "and", "with"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_documents(count: int, seed: int, topics: dict[str, str] = TOPICS) -> list[tuple[str, str]]:
    """(text, label) rows: words of the topic among common ones."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        label = list(topics)[number % len(topics)]
        words = rng.choice([*topics[label].split(), *COMMON], size=rng.integers(4, 30))
        rows.append((" ".join(words), label))
    return rows


def make_run(folder: Path, **sections: object) -> RunConfig:
    """A run folder with finished prepare, pretrain and finetune stages, and its config."""
    rows = make_documents(300, seed=0)
    splits = np.random.default_rng(1).choice(schema.SPLITS, len(rows), p=[0.6, 0.15, 0.25]).tolist()
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    _write_prepared(
        folder / "prepare", texts, labels, ["train" if s == "test" and i % 3 else s for i, s in enumerate(splits)]
    )
    runner = TextRunner(folder / "prepare", max_tokens=24)
    encoder = _write_models(folder, runner, texts, labels, splits)
    for name in ("prepare", "pretrain", "finetune"):
        Stage(folder, name, {}, {}).finish({}, {}, hash_folder(folder / name))
    assert encoder.width == 16
    (folder / "input.txt").write_text("a document\n")
    data = {
        "name": "tiny", "run_dir": str(folder), "prepare": {"source": {"type": "files", "path": str(folder / "input.txt")}},
        "pretrain": {"objective": "contrastive_text", "model": {"type": "bert", "num_layers": 1, "width": 16}},
        "finetune": {"num_classes": 3, "epochs": 0},
        "release": {"max_tokens": 24, "reference_rows": 60, "search_documents": 120},
        **sections,
    }  # fmt: skip
    return run_config.RunConfig.model_validate(data)


@functools.cache
def released_run(base: Path) -> RunConfig:
    """A tiny run that is released, made once; a test that changes it copies it first."""
    limits = {"monitor": {"min_rows": 60, "window_rows": 100}, "update": {"min_new_rows": 40}}
    return _released_once(base, "tiny_run", functools.partial(make_run, **limits))


@functools.cache
def released_gpt_run(base: Path) -> RunConfig:
    return _released_once(base, "tiny_gpt_run", make_gpt_run)


def _released_once(base: Path, name: str, make: Callable[[Path], RunConfig]) -> RunConfig:
    """Once for all processes that run tests together: an export takes seconds."""
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    written = shared / f"{name}.json"
    with open(shared / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not written.is_file():
            config = make(shared / name)
            release(config)
            written.write_text(config.model_dump_json())
    return RunConfig.model_validate_json(written.read_text())


def make_gpt_run(folder: Path) -> RunConfig:
    """A run of a GPT without a classifier, its weights as they were drawn."""
    make_run(folder)
    shutil.rmtree(folder / "finetune")
    torch.manual_seed(0)
    model = Gpt(GptConfig(num_layers=1, width=16, num_heads=2, context_length=16), 400).eval()
    torch.nn.init.normal_(model.tokens.weight)
    load.save(model, folder / "pretrain", load.describe(model, objective="gpt"))
    Stage(folder, "pretrain", {}, {}).finish({}, {}, hash_folder(folder / "pretrain"))
    source = {"type": "files", "path": str(folder / "input.txt")}
    data = {
        "name": "tiny-gpt", "run_dir": str(folder), "prepare": {"source": source},
        "pretrain": {"objective": "gpt", "model": {"type": "gpt", "num_layers": 1, "width": 16, "num_heads": 2}},
        "release": {"max_tokens": 16, "reference_rows": 60, "search_documents": 0},
    }  # fmt: skip
    return run_config.RunConfig.model_validate(data)


def copy_run(config: RunConfig, folder: Path) -> RunConfig:
    shutil.copytree(config.folder, folder)
    return config.model_copy(update={"run_dir": str(folder)})


def _write_prepared(folder: Path, texts: list[str], labels: list[str], splits: list[str]) -> None:
    (folder / "documents").mkdir(parents=True)
    ids = [f"document-{number}" for number in range(len(texts))]
    table = pa.table([ids, texts, labels, list(range(len(texts))), splits], schema=schema.DOCUMENT)
    settings = PrintSettings.of(DeduplicateConfig())
    write_index_settings(folder / "dedup_index", settings)
    write_prints(make_prints(table, settings, compiled=False), folder / "dedup_index" / "part-00000.arrow")
    for part, start in enumerate(range(0, len(texts), 100)):
        pq.write_table(table.slice(start, 100), folder / "documents" / f"part-{part:05}.parquet")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))


def _write_models(folder: Path, runner: TextRunner, texts: list[str], labels: list[str], splits: list[str]) -> Bert:
    torch.manual_seed(0)
    encoder = Bert(BertConfig(num_layers=1, width=16, num_heads=2, context_length=16), 400).eval()
    torch.nn.init.normal_(encoder.tokens.weight)
    load.save(encoder, folder / "pretrain", load.describe(encoder, objective="contrastive_text"))
    with torch.no_grad():
        embeddings = encoder.embed(torch.from_numpy(padded(runner.to_rows(texts)))).numpy()
    labelled = [row for row, split in enumerate(splits) if split == schema.TRAIN][:90]
    fitted = LogisticRegression(C=10).fit(embeddings[labelled], [labels[row] for row in labelled])
    classifier = Classifier(encoder, 3)
    with torch.no_grad():
        classifier.head.weight.copy_(torch.from_numpy(fitted.coef_))
        classifier.head.bias.copy_(torch.from_numpy(fitted.intercept_))
    load.save(classifier, folder / "finetune", load.describe(encoder))
    write_json(folder / "finetune" / "classes.json", {"classes": list(fitted.classes_)})
    write_json(folder / "finetune" / "labelled_rows.json", {"ids": [f"document-{row}" for row in labelled]})
    return encoder
