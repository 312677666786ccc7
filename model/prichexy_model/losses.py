"""What is minimised: pure functions of logits, in single precision at least.

Logits in, one number out, averaged over the batch. Precision does not follow the network's:
whatever autocast does around them, these sums are not rounded to 8 bits.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "classification_bce",
    "paper_privacy",
    "rank_privacy",
    "rank_scale",
    "supervised_contrastive",
    "verification_bce",
]

#: Where most logits are equal, this stands for their distance.
_LEAST_SCALE: Final = 1e-6


def verification_bce(logits: Tensor, same: Tensor) -> Tensor:
    """Give the cross-entropy of ``logits`` (B,) for ``same`` (B,), 1 for the same patient."""
    return _bce(logits, same)


def classification_bce(logits: Tensor, labels: Tensor, known: Tensor | None = None) -> Tensor:
    """Give the cross-entropy of ``logits`` (B, L) for ``labels`` (B, L), mean of all elements.

    With ``known`` (B, L), 1 where a label is known and else 0: mean of those, whatever stands in
    the place of the others; 0 where there are none.
    """
    if known is None:
        return _bce(logits, labels)
    logits = _single(logits)
    known = known.to(logits.dtype)
    labels = labels.to(logits.dtype)
    each = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)


def paper_privacy(logits: Tensor) -> Tensor:
    """Give the paper's privacy loss: the mean of -log(1 - σ(logit)) over *all* pairs.

    It asks that every pair look like two patients. A uniform shift of the logits satisfies it and
    leaves the ranking, by which an attacker is judged, as it was.
    """
    return functional.softplus(_single(logits)).mean()


def rank_privacy(logits: Tensor, same: Tensor, scale: Tensor | None = None) -> Tensor:
    """Give how well the logits rank equal patients before different ones, in [0, 1]: 0 for not.

    The mean of tanh((z⁺ - z⁻) / scale) over all pairs of an equal and a different one, squared.
    With the sign in the place of tanh the mean is 2 · AUC - 1, so this is 0 at chance, and nearly 1
    for logits that are apart or in the reverse order, which would serve an attacker as well. As
    the AUC does, it ignores a shift and a scale of the logits, and a few of them count for no more
    than their rank, however far they lie; unlike it, it has a slope.

    ``logits`` and ``same`` are (B,). ``scale`` is that of ``rank_scale`` where it is not given, and
    held: no gradient runs through it. A batch without both kinds of pairs gives 0. Takes memory in
    proportion to B².
    """
    logits = _single(logits)
    scale = rank_scale(logits, same) if scale is None else scale.detach()
    both = _both_kinds(same).to(logits.dtype)
    ranked = torch.tanh((logits[:, None] - logits[None, :]) / scale)
    return ((ranked * both).sum() / both.sum().clamp(min=1)).square()


def rank_scale(logits: Tensor, same: Tensor) -> Tensor:
    """Give half the median distance of an equal from a different patient's logit, detached.

    Half: most distances then lie where tanh is steep enough to learn from, and still tells ranks
    rather than lengths. Single precision at least; infinite without both kinds of pairs.
    """
    with torch.no_grad():
        logits = _single(logits)
        both = _both_kinds(same)
        far = (logits[:, None] - logits[None, :]).abs().masked_fill(~both, torch.inf)
        # Weights and places, not selections: a device need not be asked how many pairs there are.
        place = (both.sum() - 1).clamp(min=0) // 2
        median = far.flatten().sort().values.gather(0, place[None])[0]
        return (median / 2).clamp(min=_LEAST_SCALE)


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


def _both_kinds(same: Tensor) -> Tensor:
    """Give (B, B): whether the first is one patient's pair and the second two patients'."""
    alike = same > 0
    return alike[:, None] & ~alike[None, :]


def _bce(logits: Tensor, targets: Tensor) -> Tensor:
    logits = _single(logits)
    return functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


def _single(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
