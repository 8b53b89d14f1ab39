"""A tokenizer.json that somebody else made, with its special tokens moved to the ids that all our vocabularies share.

Ids are only names of rows of an embedding: PAD, UNK, CLS, SEP and MASK move to 0 to 4, the other tokens keep their order
behind them, and weights that come with the tokenizer are moved the same way (`raysl.train.start`). So nothing that reads
tokens has to ask whose they are, and what a run writes is one consistent pair of tokenizer and weights.
"""

import json
from pathlib import Path
from typing import Any

from raysl.errors import ConfigError

ROLES = (
    ("[PAD]", "<pad>"),
    ("[UNK]", "<unk>"),
    ("[CLS]", "<s>"),
    ("[SEP]", "</s>", "<|endoftext|>"),
    ("[MASK]", "<mask>"),
)
"""Names that the special tokens have elsewhere, in the order of our ids; the first one is added where none is there."""
MODELS = ("BPE", "WordPiece")


def read_given_tokenizer(path: Path) -> str:
    """The text of the renumbered tokenizer.json; ConfigError where it is none that can be used."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        kind = given["model"]["type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"prepare.tokenizer.path: {path} is no tokenizer.json ({type(error).__name__}). Give the file that "
            "`save_pretrained` of a fast tokenizer of transformers writes."
        ) from error
    if kind not in MODELS:
        raise ConfigError(f"prepare.tokenizer.path: {path} holds a {kind} model. Supported: {', '.join(MODELS)}.")
    return json.dumps(renumbered(given), ensure_ascii=False, indent=2)


def renumbered(given: dict[str, Any]) -> dict[str, Any]:
    """The same tokenizer with the special tokens at ids 0 to 4 and every id from 0 on in use once."""
    known = {**given["model"]["vocab"], **{token["content"]: token["id"] for token in given.get("added_tokens", ())}}
    special = [next((name for name in names if name in known), names[0]) for names in ROLES]
    others = sorted((name for name in known if name not in special), key=lambda name: int(known[name]))
    vocabulary = {name: number for number, name in enumerate([*special, *others])}
    added = [token for token in given.get("added_tokens", ()) if token["content"] not in special]
    model = {**given["model"], "vocab": vocabulary}
    if given["model"]["type"] == "WordPiece":
        model["unk_token"] = special[1]
    return {
        **given,
        "model": model,
        "added_tokens": [_special_token(name) for name in special] + added_with_ids(added, vocabulary),
        "post_processor": _post_processor(given.get("post_processor"), vocabulary),
        "truncation": None,
        "padding": None,
    }


def added_with_ids(added: list[dict[str, Any]], vocabulary: dict[str, int]) -> list[dict[str, Any]]:
    return [{**token, "id": vocabulary[token["content"]]} for token in added]


def _special_token(name: str) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": next(n for n, names in enumerate(ROLES) if name in names), "content": name, **plain}


def _post_processor(given: dict[str, Any] | None, vocabulary: dict[str, int]) -> dict[str, Any] | None:
    """What puts [CLS] and [SEP] around a text in transformers; we do not call it, but it travels with the file."""
    if given is None:
        return None
    changed = dict(given)
    for role in ("sep", "cls"):  # BertProcessing, RobertaProcessing: [token, id]
        if role in changed:
            changed[role] = [changed[role][0], vocabulary[changed[role][0]]]
    if "special_tokens" in changed:  # TemplateProcessing
        changed["special_tokens"] = {
            name: {**token, "ids": [vocabulary[t] for t in token["tokens"]]}
            for name, token in changed["special_tokens"].items()
        }
    if "processors" in changed:  # Sequence
        changed["processors"] = [_post_processor(part, vocabulary) for part in changed["processors"]]
    return changed
