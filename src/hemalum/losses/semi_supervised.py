"""What strong views of an image without truth are held to: the weak view's confident classes, and each other.

Sohn et al. 2020 (FixMatch), Yang et al. 2023 (UniMatch), CSRA-Net 2025 (eq. 7-9).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from hemalum.losses.loss import AllReduceSum, identity, weighted_mean

TEMPERATURE = 0.1


def consistency(
    logits_BCHW: Tensor,
    label_BHW: Tensor,
    keep_BHW: Tensor,
    inside_BHW: Tensor,
    all_reduce_sum: AllReduceSum = identity,
) -> Tensor:
    """H(ŷ, p) summed over the pixels that `keep` (0 or 1) leaves, divided by how many lie `inside` (eq. 9).

    `label` (B, H, W) int64 is ŷ, the weak view's class.
    """
    losses = F.cross_entropy(logits_BCHW, label_BHW, reduction="none") * keep_BHW
    return weighted_mean(losses, inside_BHW, all_reduce_sum)


def contrast(
    first_BDHW: Tensor, second_BDHW: Tensor, prototypes_CD: Tensor, label_BHW: Tensor, keep_BHW: Tensor,
    temperature: float = TEMPERATURE, all_reduce_sum: AllReduceSum = identity,
) -> Tensor:  # fmt: skip
    """Two strong views' features drawn together and away from the other classes; mean over the pixels kept.

    Eq. 7 in a bounded form: all vectors have length 1, and the positive q1 · q2 stands in the denominator beside
    q · k_i of every class i but the pixel's own, so that each term is the -log of a share. As printed, the numerator
    is not in the denominator, and there is no lower bound. `prototypes` k are the classifier's weights by class.
    """
    first, second = F.normalize(first_BDHW, dim=1), F.normalize(second_BDHW, dim=1)
    classes = F.normalize(prototypes_CD, dim=1)
    positive = (first * second).sum(1, keepdim=True) / temperature
    one_hot = F.one_hot(label_BHW, len(classes)).permute(0, 3, 1, 2).bool()
    terms = []
    for view in (first, second):
        others = torch.einsum("bdhw,cd->bchw", view, classes) / temperature
        against = torch.cat([positive, others.masked_fill(one_hot, -torch.inf)], dim=1)
        terms.append(against.logsumexp(1) - positive[:, 0])
    losses = (terms[0] + terms[1]) / 2 * keep_BHW
    return weighted_mean(losses, keep_BHW, all_reduce_sum)
