"""Two views of one row find each other among all rows of the batch (NT-Xent, Chen et al., 2020)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from raysl.models import ranks
from raysl.models.encoder import at_least_float, exact
from raysl.objectives.gather import Sent, send_rows


def send_views(first: Tensor, second: Tensor, num_rows: int) -> Sent:
    """Both views (B, width) of this rank's rows on their way to the other ranks, of a global batch of `num_rows`."""
    return send_rows(torch.stack([first, second], dim=1), ranks.rows_of_each(num_rows))


def nt_xent_sum(first: Tensor, second: Tensor, sent: Sent, temperature: float) -> Tensor:
    """Sum over our 2B views of -log softmax of the similarity to the other view; divide by 2 x global batch size.

    `first`, `second` (B, width) are l2-normalised, and `sent` by `send_views`. Every other view of every rank's rows is a
    negative.
    """
    views = torch.cat([first, second])  # (2B, width)
    pairs, start = sent.received()  # (N, 2, width)
    everything = pairs.transpose(0, 1).flatten(0, 1)  # (2N, width)
    rows, total = len(first), len(pairs)
    with exact(views):
        similarity = at_least_float(views) @ at_least_float(everything).T / temperature  # (2B, 2N)
    own = torch.arange(rows, device=views.device) + start
    itself = torch.cat([own, own + total])
    similarity = similarity.scatter(1, itself[:, None], float("-inf"))
    other_view = torch.cat([own + total, own])
    return F.cross_entropy(similarity, other_view, reduction="sum")
