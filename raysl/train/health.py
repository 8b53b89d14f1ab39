"""Signs of collapse: how far embeddings spread and how many directions they use."""

import torch
from torch import Tensor


def spread_and_rank(embeddings: Tensor) -> tuple[float, float]:
    """Mean standard deviation over dimensions times sqrt(width), and the effective rank, of normalised rows (rows, width).

    Rows spread evenly over the sphere have a spread near 1 and a rank near their width; a collapsed encoder has 0 and 1.
    The rank is the exponential of the entropy of the singular values (Roy & Vetterli, 2007).
    """
    centred = embeddings - embeddings.mean(0)
    spread = float(embeddings.std(0).mean() * embeddings.shape[1] ** 0.5)
    values = torch.linalg.svdvals(centred)
    shares = values / values.sum().clamp_min(1e-12)
    entropy = -(shares * shares.clamp_min(1e-12).log()).sum()
    return spread, float(entropy.exp())
