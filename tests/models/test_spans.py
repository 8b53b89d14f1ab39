"""Attention by the borders of documents: what a GPU does, here with its kernel's documented meaning in plain torch."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from raysl.models import spans, text
from raysl.models.config import BertConfig, GptConfig
from raysl.models.text import SEP, Bert, Gpt
from raysl.objectives.base import document_borders, document_numbers


def test_borders_are_where_documents_start_and_the_number_of_places() -> None:
    tokens = np.array([[7, SEP, 8, 9, SEP], [SEP, 6, 6, 6, 6]])
    assert document_borders(document_numbers(tokens, SEP)).tolist() == [0, 2, 5, 6, 10]


def by_document(
    query: Tensor, key: Tensor, value: Tensor, borders: Tensor, same: Tensor, longest: int, longest_key: int, *,
    window_size: tuple[int, int],
) -> Tensor:  # fmt: skip
    """torch.nn.attention.varlen.varlen_attn, as its documentation says, one document after the other."""
    assert torch.equal(borders, same)
    assert longest == longest_key >= int(borders.diff().max())
    causal = {(-1, 0): True, (-1, -1): False}[window_size]
    parts = []
    for start, stop in pairwise(borders.tolist()):
        q, k, v = (x[start:stop].transpose(0, 1) for x in (query, key, value))
        parts.append(F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(0, 1))
    return torch.cat(parts)


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", by_document)
    monkeypatch.setattr(text, "takes_spans", lambda x, head_width: True)
    return


@pytest.mark.parametrize(("kind", "config"), [(Bert, BertConfig), (Gpt, GptConfig)])
def test_packed_documents_by_their_borders_are_those_by_a_mask(as_on_a_gpu: None, kind: type, config: type) -> None:
    torch.manual_seed(0)
    model = kind(config(width=32, num_heads=4, num_layers=2, context_length=16), 60).double()
    tokens = torch.randint(SEP, 12, (5, 16))
    documents = document_numbers(tokens.numpy(), SEP)
    borders = torch.from_numpy(document_borders(documents))
    assert len(borders) > 8
    both = [model.encode(tokens, torch.from_numpy(documents), borders=given) for given in (None, borders)]
    torch.testing.assert_close(*both, atol=1e-12, rtol=1e-12)


def test_a_cpu_full_precision_and_dropout_take_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(1)
    assert not spans.takes_spans(x, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert not spans.takes_spans(x, 64)
    monkeypatch.setattr(text, "takes_spans", lambda x, head_width: True)
    model = Gpt(GptConfig(width=32, num_heads=4, num_layers=1, dropout=0.1), 60)
    assert not model.train()._takes_spans(x)
    assert model.eval()._takes_spans(x)
