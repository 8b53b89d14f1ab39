"""What benchmarks/serve.py compares with: the plain FastAPI service that one would write, and the model both serve.

python -m benchmarks._serve_peer BUNDLE PORT
"""

import socket
import sys
from pathlib import Path

from raysl.release.bundle import CLASSIFIER, ENCODER, TOKENIZER, write_bundle
from raysl.release.model_registry import promote, register

MAX_TOKENS, NUM_CLASSES = 64, 16


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def make_bundle(folder: Path) -> int:
    """Registers and promotes a classifier with random weights; returns its version."""
    import pydoc

    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    from raysl.models.config import BertConfig
    from raysl.models.heads import Classifier
    from raysl.models.text import Bert
    from raysl.release.onnx import EmbedGraph, export_on_tokens

    bundle = folder / "bundle"
    bundle.mkdir()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([str(pydoc.__doc__), *map(str, vars(pydoc).values())], trainer)
    tokenizer.save(str(bundle / TOKENIZER))
    torch.manual_seed(0)
    encoder = Bert(BertConfig(context_length=MAX_TOKENS), tokenizer.get_vocab_size())
    export_on_tokens(EmbedGraph(encoder), ["embedding"], bundle / ENCODER, 20)
    export_on_tokens(Classifier(encoder, NUM_CLASSES), ["logits", "embedding"], bundle / CLASSIFIER, 20)
    facts = {"classes": [f"class {i}" for i in range(NUM_CLASSES)], "max_tokens": MAX_TOKENS, "width": encoder.width}
    write_bundle(bundle, facts | {"metrics": {}, "parity": {}, "versions": {}})
    version = register(folder, bundle, {})
    promote(folder, version)
    return version


def main(bundle: str, port: int) -> None:
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel, Field

    from raysl.serve.batcher import Batcher
    from raysl.serve.session import BundleSession
    from raysl.serve.tasks.classify import Classify, ClassifyConfig

    class Request(BaseModel):
        text: str = Field(min_length=1, max_length=100_000)

    batcher = Batcher(Classify(BundleSession.open(bundle), ClassifyConfig()).predict, 32)
    app = FastAPI()

    @app.post("/v1/classify")
    async def classify(request: Request) -> dict[str, object]:
        return dict((await batcher(request)).response.model_dump())

    uvicorn.run(app, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
