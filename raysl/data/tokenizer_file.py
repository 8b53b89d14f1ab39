"""How a tokenizer.json is opened, everywhere."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load_tokenizer(path: Path) -> "Tokenizer":
    """The tokenizer of a run or a bundle; a literal `[SEP]` in a text is text, as anybody can type it."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True  # not kept in the file
    return tokenizer
