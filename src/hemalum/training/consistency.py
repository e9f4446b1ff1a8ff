"""One update from two streams: the phase's loss on labelled images, strong views held to the weak one on the others.

The network that trains runs once, on all views together, so that batch norm sees one batch and gradients come from
one pass. What the weak view is taken for comes from the same weights in eval mode, without gradients.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hemalum.data.strong_views import partners
from hemalum.losses.consistency import consistency, contrast
from hemalum.losses.loss import AddUp
from hemalum.networks.outputs import Outputs
from hemalum.systems.unlabelled import Unlabelled


@dataclass(frozen=True, slots=True, eq=False)
class PseudoLabels:
    """Classes ŷ (…, H, W) int64, and as float32 0 or 1: where they are sure enough, where an image is."""

    label: Tensor
    keep: Tensor
    inside: Tensor

    def mixed(self, boxes_BHW: Tensor) -> "PseudoLabels":
        """Those of views (B, H, W) whose boxes come from their partners."""
        order = partners(len(self.label))
        return PseudoLabels(
            *(torch.where(boxes_BHW, own[order], own) for own in (self.label, self.keep, self.inside))
        )


def pseudo_labels(logits_BCHW: Tensor, inside_BHW: Tensor, threshold: float) -> PseudoLabels:
    """ŷ = argmax p, kept where max p is at least τ and the pixel lies inside its image (eq. 8 and 9)."""
    sure, label = logits_BCHW.softmax(1).max(1)
    return PseudoLabels(label, (sure >= threshold).float() * inside_BHW, inside_BHW)


def two_stream_losses(
    settings: Unlabelled,
    network: nn.Module,
    weak_logits: Tensor,
    images: Tensor,
    views: Mapping[str, Tensor],
    supervised: Callable[[Outputs], dict[str, Tensor]],
    add_up: AddUp,
) -> tuple[dict[str, Tensor], Tensor]:
    """The weighted parts of the loss by name, and what the pseudo-labels are worth (3,): pixels seen, kept, right.

    `images` are the labelled ones, `views` those of `UnlabelledStream.batch` and, as `labelled`, strong views of the
    labelled; `weak_logits` (B, C, H, W) are what ŷ is read from. `supervised` gives the phase's loss of outputs.
    """
    labelled = [images] if settings.labelled != "strong" else []
    if settings.labelled != "weak":
        labelled.append(views["labelled"])
    weak = [views["weak"]] if settings.dropped else []
    # those whose channels are left out come last, which is where the network looks for them
    every = torch.cat([*labelled, views["strong"], *weak]).contiguous(memory_format=torch.channels_last)
    wanted: dict[str, int | bool] = {"dropped": len(views["weak"])} if settings.dropped else {}
    if settings.contrast:
        wanted["features"] = True
    outputs = Outputs.of(network(every, **wanted))

    parts: dict[str, Tensor] = {}
    batch = len(images)
    for which in range(len(labelled)):
        own = slice(which * batch, (which + 1) * batch)
        for name, part in supervised(outputs._replace(logits=outputs.logits[own], sides=_cut(outputs, own))).items():
            parts[name] = parts.get(name, 0) + settings.supervised * part

    found = pseudo_labels(weak_logits, views["inside"], settings.threshold)
    mixed = [found.mixed(boxes) for boxes in views["boxes"]]
    start = len(labelled) * batch
    strong = [slice(start + view * batch, start + (view + 1) * batch) for view in range(settings.views)]
    if settings.consistency:
        terms = [
            consistency(outputs.logits[own], one.label, one.keep, one.inside, add_up)
            for own, one in zip(strong, mixed, strict=True)
        ]
        parts["consistency"] = settings.consistency * torch.stack(terms).mean()
    if settings.dropped:
        term = consistency(outputs.extras["dropped"], found.label, found.keep, found.inside, add_up)
        parts["dropped"] = settings.dropped * term
    if settings.contrast:
        features, prototypes = outputs.extras["features"], outputs.extras["prototypes"]
        # a pixel is the same in both views where both show their own image, or both the partner's
        same = views["boxes"][0] == views["boxes"][1]
        step = same.shape[-1] // features.shape[-1]
        label, keep = (_coarse(x, step) for x in (mixed[0].label, mixed[0].keep * same))
        term = contrast(
            features[strong[0]], features[strong[1]], prototypes, label, keep, settings.temperature, add_up
        )
        parts["contrast"] = settings.contrast * term
    right = found.keep * (found.label == views["truth"])
    return parts, torch.stack([found.inside.sum(), found.keep.sum(), right.sum()])


def worth(counts: Tensor) -> dict[str, float]:
    """Pixels seen, kept and right, added up, as figures: how many are kept, and how many of those are right."""
    seen, kept, right = counts.tolist()
    rows = {"mask_rate": kept / max(seen, 1)}
    return rows | ({"pseudo_accuracy": right / kept} if kept else {})


def _cut(outputs: Outputs, own: slice) -> tuple[Tensor, ...]:
    return tuple(side[own] for side in outputs.sides)


def _coarse(x_BHW: Tensor, step: int) -> Tensor:
    """The pixel nearest to the middle of each step x step block."""
    return x_BHW[:, step // 2 :: step, step // 2 :: step]
