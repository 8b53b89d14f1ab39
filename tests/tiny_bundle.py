"""A tiny bundle whose answers can be worked out by hand; made without torch."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from raysl.data.decode import Decoding
from raysl.release.bundle import write_bundle
from raysl.release.reference import write_reference
from raysl.release.runtime import PictureRunner

CLASSES = ("fruit", "tool", "animal")
WORDS = {"fruit": ["apple", "banana", "cherry"], "tool": ["hammer", "saw", "drill"], "animal": ["cat", "dog", "horse"]}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, *(word for words in WORDS.values() for word in words)]
WIDTH = 4
MAX_TOKENS = 16
DOCUMENTS = [("a", "apple banana", "fruit"), ("b", "hammer saw", "tool"), ("c", "cat dog horse", "animal"),
             ("d", "apple hammer", "fruit"), ("e", "drill " * 200, None)]  # fmt: skip

EMBED = """
  zero = Constant<value_int=0>()
  real = Greater(tokens, zero)
  mask = Cast<to=1>(real)
  vectors = Gather(table, tokens)
  last = Constant<value_ints=[2]>()
  mask3 = Unsqueeze(mask, last)
  masked = Mul(vectors, mask3)
  length_axis = Constant<value_ints=[1]>()
  summed = ReduceSum<keepdims=0>(masked, length_axis)
  embedding = LpNormalization<axis=1,p=2>(summed)
"""
GENERATE = """
  row = Constant<value_int=-1>()
  last_tokens = Gather<axis=1>(tokens, row)
  next = Gather(successors, last_tokens)
  floats = Cast<to=1>(tokens)
  axes = Constant<value_ints=[0,2,4]>()
  fresh = Unsqueeze(floats, axes)
  keys = Concat<axis=3>(past_keys, fresh)
  values = Concat<axis=3>(past_values, fresh)
  shape = Shape<start=3,end=4>(keys)
  count = Cast<to=1>(shape)
  end = Mul(count, end_bias)
  logits = Add(next, end)
"""


def word_vectors() -> np.ndarray:
    """One axis per class; [SEP], [UNK] and the rest lie on the fourth axis, weakly."""
    table = np.zeros((len(VOCABULARY), WIDTH), np.float32)
    table[1:5, 3] = 0.01
    for axis, words in enumerate(WORDS.values()):
        for word in words:
            table[VOCABULARY.index(word), axis] = 1
    return table


def successors() -> np.ndarray:
    """After each word comes the next of the vocabulary, with 10 against 0."""
    return (10 * np.roll(np.eye(len(VOCABULARY)), 1, axis=1)).astype(np.float32)


def save_model(path: Path, signature: str, body: str, **weights: np.ndarray) -> None:
    text = f'<ir_version: 9, opset_import: ["" : 20]> tiny ({signature}) {{{body}}}'
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.save(model, str(path))


def save_tokenizer(path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))


def make_bundle(folder: Path, generates: bool = True, **facts: object) -> Path:
    """A bundle of all four tasks: words of three classes, and a text model that counts through the vocabulary."""
    (folder / "search").mkdir(parents=True)
    save_tokenizer(folder / "tokenizer.json")
    table = word_vectors()
    tokens = "int64[batch,length] tokens) => (float[batch,width] embedding"
    save_model(folder / "encoder.onnx", tokens, EMBED, table=table)
    both = "int64[batch,length] tokens) => (float[batch,classes] logits, float[batch,width] embedding"
    head = np.eye(WIDTH, len(CLASSES), dtype=np.float32) * 4
    save_model(folder / "classifier.onnx", both, EMBED + "  logits = MatMul(embedding, head)\n", table=table, head=head)
    if generates:
        save_generator(folder / "generator.onnx")
    save_documents(folder / "search", table)
    known = {"classes": list(CLASSES), "max_tokens": MAX_TOKENS, "width": WIDTH, "metrics": {}, "parity": {}, "versions": {}}
    write_bundle(folder, known | facts)
    return folder


def save_generator(path: Path) -> None:
    past = "float[1,batch,1,past,1]"
    signature = (f"int64[batch,length] tokens, {past} past_keys, {past} past_values) => "
                 f"(float[batch,vocab] logits, float[1,batch,1,all,1] keys, float[1,batch,1,all,1] values")  # fmt: skip
    end_bias = np.zeros(len(VOCABULARY), np.float32)
    end_bias[3] = 1.5  # [SEP] wins over the successor's 10 once seven tokens lie in the cache
    save_model(path, signature, GENERATE, successors=successors(), end_bias=end_bias)


def save_documents(folder: Path, table: np.ndarray) -> None:
    sums = np.array([sum(table[VOCABULARY.index(word)] for word in text.split()) for _, text, _ in DOCUMENTS])
    np.save(folder / "embeddings.npy", (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32))
    columns = [list(column) for column in zip(*DOCUMENTS, strict=True)]
    documents = pa.table({name: pa.array(c, pa.string()) for name, c in zip(("id", "text", "label"), columns, strict=True)})
    pq.write_table(documents, folder / "documents.parquet")


PICTURE_EMBED = """
  real = Cast<to=1>(pixels)
  axes = Constant<value_ints=[1,2,3]>()
  bright = ReduceMean<keepdims=0>(real, axes)
  last = Constant<value_ints=[1]>()
  column = Unsqueeze(bright, last)
  dark = Sub(white, column)
  both = Concat<axis=1>(column, dark)
  embedding = LpNormalization<axis=1,p=2>(both)
"""


def make_picture_bundle(folder: Path, reference: pa.Table | None = None, classes: Sequence[str] = ("day", "night")) -> Path:
    """A bundle of three tasks: how bright a grey picture is, and how dark. `reference` are rows of pixel shards.

    Without `classes` it does not classify.
    """
    (folder / "search").mkdir(parents=True)
    pixels = "uint8[batch,1,4,4] pixels) => (float[batch,width] embedding"
    white = np.array([[255]], np.float32)
    save_model(folder / "encoder.onnx", pixels, PICTURE_EMBED, white=white)
    both = "uint8[batch,1,4,4] pixels) => (float[batch,classes] logits, float[batch,width] embedding"
    head = np.eye(2, dtype=np.float32) * 4
    if classes:
        body = PICTURE_EMBED + "  logits = MatMul(embedding, head)\n"
        save_model(folder / "classifier.onnx", both, body, white=white, head=head)
    np.save(folder / "search" / "embeddings.npy", np.eye(2, dtype=np.float32))
    columns = [["a.png", "b.png"], pa.nulls(2, pa.string()), ["day", "night"]]
    pq.write_table(pa.table(columns, names=["id", "text", "label"]), folder / "search" / "documents.parquet")
    how = Decoding(size=4, channels=1, patch_size=4, resize="crop", least_side=4, max_pixels=10_000)
    if reference is not None:
        write_reference(folder, PictureRunner(folder), reference, reference.slice(0, 0), classes)
    known = {"classes": list(classes), "width": 2, "metrics": {}, "parity": {}, "versions": {}, "decoding": asdict(how)}
    write_bundle(folder, known)
    return folder
