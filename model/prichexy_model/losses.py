"""What is minimised: pure functions of logits, in single precision at least.

Logits in, one number out, averaged over the batch. Precision does not follow the network's:
whatever autocast does around them, these sums are not rounded to 8 bits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "classification_bce",
    "gap_privacy",
    "paper_privacy",
    "supervised_contrastive",
    "verification_bce",
]


def verification_bce(logits: Tensor, same: Tensor) -> Tensor:
    """Give the cross-entropy of ``logits`` (B,) for ``same`` (B,), 1 for the same patient."""
    return _bce(logits, same)


def classification_bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Give the cross-entropy of ``logits`` (B, L) for ``labels`` (B, L), mean of all elements."""
    return _bce(logits, labels)


def paper_privacy(logits: Tensor) -> Tensor:
    """Give the paper's privacy loss: the mean of -log(1 - σ(logit)) over *all* pairs.

    It asks that every pair look like two patients. A uniform shift of the logits satisfies it and
    leaves the ranking, by which an attacker is judged, as it was.
    """
    return functional.softplus(_single(logits)).mean()


def gap_privacy(logits: Tensor, same: Tensor) -> Tensor:
    """Give how far apart the logits of equal and of different patients lie: 0 for not at all.

    With d the difference of the two means over the standard deviation within (the attacker's d′:
    for normal logits its AUC is Φ(d / √2)), this is √(1 + d²) - 1. As the AUC does, it ignores a
    shift and a scale of the logits; unlike it, it has a slope wherever they lie. Its minimum is
    equality, not the reverse order, which would serve an attacker as well.

    ``logits`` and ``same`` are (B,). A batch without both kinds of pairs gives 0.
    """
    logits = _single(logits)
    positive = same.to(logits.dtype)
    negative = 1 - positive
    # Weights, not selections: a device need not be asked how many pairs there are of a kind.
    count = torch.stack((negative.sum(), positive.sum()))
    mean = torch.stack(((logits * negative).sum(), (logits * positive).sum())) / count.clamp(min=1)
    variance = (logits - mean[0] * negative - mean[1] * positive).square().mean()
    # Where all logits of a kind are alike, 1e-6 stands for their variance.
    gap = (mean[1] - mean[0]) * (count.amin() > 0)
    return (1 + gap.square() / (variance + 1e-6)).sqrt() - 1


def supervised_contrastive(embeddings: Tensor, patients: Tensor, temperature: float) -> Tensor:
    """Give the supervised contrastive loss (Khosla et al. 2020, sum outside the logarithm).

    ``embeddings`` (B, E) have length 1, ``patients`` (B,) are whole numbers. An image whose patient
    occurs once serves as a negative of the others and has no term of its own; a batch without a
    second image of anybody gives 0. Raises ValueError for a temperature that is not above 0.
    """
    if not temperature > 0:
        raise ValueError("temperature is above 0")
    with torch.autocast(embeddings.device.type, enabled=False):
        embeddings = _single(embeddings)
        likeness = embeddings @ embeddings.T / temperature
    itself = torch.eye(len(patients), dtype=torch.bool, device=embeddings.device)
    likeness = likeness.masked_fill(itself, -torch.inf)
    same = (patients[:, None] == patients[None, :]) & ~itself
    count = same.sum(1)
    log_share = likeness - likeness.logsumexp(1, keepdim=True)
    terms = -log_share.masked_fill(~same, 0).sum(1) / count.clamp(min=1)
    return terms.sum() / (count > 0).sum().clamp(min=1)


def _bce(logits: Tensor, targets: Tensor) -> Tensor:
    logits = _single(logits)
    return functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


def _single(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
