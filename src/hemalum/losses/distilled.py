"""What keeps a network near the one that it started from where the labels have not changed what that one says.

Knowledge distillation of Hinton, Vinyals and Dean 2015, at temperature 1 and pixel by pixel; against forgetting, as
"Learning without Forgetting" (Li and Hoiem 2016) has it.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny
from torch import Tensor
from torch.nn import functional as F

from hemalum.errors import HemalumError
from hemalum.losses.loss import AllReduceSum, Loss, LossInputs, identity, weighted_mean
from hemalum.targets.representations import Head

if TYPE_CHECKING:
    from collections.abc import Sequence

CHANGED = 0.5  # of a map's range: by how much its target differs from the old map where labels have been changed


def distillation(
    logits_BCHW: Tensor,
    teacher_BCHW: Tensor,
    targets_BCHW: Tensor,
    heads: "Sequence[Head]",
    all_reduce_sum: AllReduceSum = identity,
    valid_B1HW: Tensor | None = None,
) -> Tensor:
    """How far the maps of `logits` are from those of the `teacher` where the labels say what the teacher says.

    With old maps t and new maps p of a head h, and targets y,

        L = Σ_h  Σ_{i∈U} D_h(t_i, p_i) / |U|,      U = { i : |t_ic − y_ic| ≤ r_c / 2 for every map c }

    where r is the range of a map (1; 2 of a tanh). D is the divergence of the classes Σ_c t_c log(t_c / p_c) of a
    softmax head, the background among them; the mean over maps of t log(t / p) + (1 − t) log((1 − t) / (1 − p)) of
    a sigmoid head; and the mean over maps of (t − p)² of a tanh head. U leaves out the pixels that a correction has
    changed, where the old maps are wrong, and those that are not `valid` (B, 1, H, W). A target that nobody knows
    (NaN) changes nothing. Logits are (B, L, H, W), targets (B, C, H, W); the teacher gets no gradient.
    """
    teacher_BCHW = teacher_BCHW.detach()
    new_of = torch.split(logits_BCHW, [head.logits for head in heads], dim=1)
    old_of = torch.split(teacher_BCHW, [head.logits for head in heads], dim=1)
    targets_of = torch.split(targets_BCHW, [len(head.channels) for head in heads], dim=1)
    same = torch.ones_like(logits_BCHW[:, :1]) if valid_B1HW is None else valid_B1HW
    terms = []
    for head, new, old, target in zip(heads, new_of, old_of, targets_of, strict=True):
        match head.kind:
            case "softmax":
                maps, span = old.softmax(1)[:, 1:], 1.0
                shares, old_shares = new.log_softmax(1), old.log_softmax(1)
                divergence = F.kl_div(shares, old_shares, reduction="none", log_target=True).sum(1)
            case "sigmoid":
                maps, span = old.sigmoid(), 1.0
                entropy = F.binary_cross_entropy_with_logits(old, maps, reduction="none")
                divergence = (F.binary_cross_entropy_with_logits(new, maps, reduction="none") - entropy).mean(1)
            case "tanh":
                maps, span = old.tanh(), 2.0
                divergence = (new.tanh() - maps).square().mean(1)
        changed = (maps - target).abs() > CHANGED * span  # never where the target is NaN
        same = same * (~changed.any(1, keepdim=True))
        terms.append(divergence)
    return weighted_mean(torch.stack(terms).sum(0) * same[:, 0], same, all_reduce_sum)


def _loss(spec: Any) -> Loss:
    from hemalum.losses.registry import build_loss  # which has this loss in its table

    try:
        return build_loss(spec)
    except HemalumError as error:  # pydantic collects ValueErrors and says where they stand
        raise ValueError(str(error)) from error


class Distilled(Loss):
    """Another loss, and `weight` × the distance to the maps of the weights that the training starts with.

    See `distillation`. It needs a training that starts with a model (`initial`); on validation images it is the
    other loss alone.
    """

    name: Literal["distilled"] = "distilled"
    loss: Annotated[SerializeAsAny[Loss], BeforeValidator(_loss)] = Field(description="what it is added to")
    weight: float = Field(1.0, gt=0, description="of the distance to the old maps")

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the other loss."""
        return self.loss.needs

    @property
    def only(self) -> frozenset[str] | None:  # type: ignore[override]
        """Those of the other loss."""
        return self.loss.only

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """See `Loss`."""
        parts = self.loss(inputs)
        if inputs.teacher is None:
            return parts
        term = distillation(
            inputs.outputs.logits, inputs.teacher, inputs.targets, inputs.heads, inputs.all_reduce_sum, inputs.valid
        )
        return parts | {"distillation": self.weight * term}

    def factors(self, inputs: LossInputs) -> dict[str, float]:
        """See `Loss`."""
        return self.loss.factors(inputs)
