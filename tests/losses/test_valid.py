"""What the validity map says no loss may look at: outputs and targets there change nothing, and what is left counts
as if the image ended there."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from hemalum.losses import LOSSES, build_loss
from hemalum.losses.loss import LossInputs, identity, masked_mean
from hemalum.networks.contract import Outputs
from hemalum.targets.representations import REPRESENTATIONS, Head

SIZE = 24
WINDOW = (..., slice(5, 20), slice(3, 17))  # what is valid
EVERYTHING = (..., slice(None), slice(None))

# each loss by name, on heads that it fits; AL-Net and the tanh head also look at neighboring pixels
CASES: dict[str, tuple[Any, tuple[Head, ...]]] = {
    "maps": ("maps", REPRESENTATIONS["interior_boundary"].heads),
    "maps of a distance": ("maps", REPRESENTATIONS["distance"].heads),
    "maps of gradients": ("maps", REPRESENTATIONS["center_gradient"].heads),
    "maps of partial classes": ("maps", (Head("softmax", ("a", "b"), partial=True),)),
    "bce": ({"name": "bce", "stage1_weight": 0.5}, REPRESENTATIONS["foreground"].heads),
    "cross_entropy": ("cross_entropy", (Head("softmax", ("a", "b")),)),
    "border_bce": ("border_bce", REPRESENTATIONS["foreground"].heads),
    "dice": ("dice", REPRESENTATIONS["foreground"].heads),
    "tversky": ("tversky", REPRESENTATIONS["foreground_edge"].heads),
    "histo": ("histo", REPRESENTATIONS["foreground_edge"].heads),
    "al_net": ({"name": "al_net", "ramp": 0}, REPRESENTATIONS["foreground"].heads),
    "focal_dice": ({"name": "focal_dice", "background": True}, REPRESENTATIONS["foreground"].heads),
    "focal_dice of the union": ({"name": "focal_dice", "union": True}, REPRESENTATIONS["foreground"].heads),
    "unet3plus": ("unet3plus", REPRESENTATIONS["foreground"].heads),
    "distilled": ({"name": "distilled", "loss": "bce", "weight": 2}, REPRESENTATIONS["foreground"].heads),
    "distilled of gradients": ({"name": "distilled", "loss": "maps"}, REPRESENTATIONS["center_gradient"].heads),
}


def make(heads: tuple[Head, ...], part: Any, seed: int = 0, beyond: int | None = None) -> LossInputs:
    """Random outputs and targets, this part of them; outside of WINDOW they are of the seed `beyond`."""
    logits, targets = sum(head.logits for head in heads), sum(len(head.channels) for head in heads)

    def draw(channels: int, seed: int, generator: str) -> torch.Tensor:
        drawn = torch.Generator().manual_seed(seed * 100 + channels * 10 + len(generator))
        shape = 2, channels, SIZE, SIZE
        if generator == "shares":  # of classes, which exclude each other
            hot = torch.randint(0, channels + 1, (2, SIZE, SIZE), generator=drawn)
            return torch.nn.functional.one_hot(hot, channels + 1).permute(0, 3, 1, 2)[:, 1:].float()
        return torch.randn(shape, generator=drawn)

    def maps(channels: int, generator: str) -> torch.Tensor:
        values = draw(channels, seed, generator)
        if beyond is not None:
            others = draw(channels, beyond, generator)
            others[WINDOW] = values[WINDOW]
            values = others
        return values[part]

    outputs = Outputs(
        maps(logits, "logits"),
        (maps(logits, "aux"),),
        {"stage1_logits": maps(logits, "stage1"), "presence": PRESENCE},
    )
    extra = {"border_weight": maps(1, "border").abs() + 1, "signed_distance": maps(1, "signed distance")}
    return LossInputs(
        outputs, maps(targets, "shares"), heads, extra, run_steps=10, teacher=maps(logits, "the teacher")
    )


PRESENCE = torch.tensor([[0.3, -0.2], [0.1, 0.4]])


def valid_in(part: Any) -> torch.Tensor:
    valid = torch.zeros(2, 1, SIZE, SIZE)
    valid[part] = 1
    return valid


def valid_columns(stop: int) -> torch.Tensor:
    return valid_in((..., slice(None), slice(0, stop)))


def test_every_loss_has_a_case() -> None:
    assert {build_loss(spec).name for spec, _ in CASES.values()} == set(LOSSES)


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_valid_changes_nothing(case: str) -> None:
    spec, heads = CASES[case]
    loss = build_loss(spec)
    inputs = replace(make(heads, EVERYTHING), valid=valid_in(WINDOW))
    logits = inputs.outputs.logits.requires_grad_()
    parts = loss(inputs)
    other = loss(replace(make(heads, EVERYTHING, beyond=1), valid=valid_in(WINDOW)))
    for name, part in parts.items():
        assert torch.isfinite(part)
        torch.testing.assert_close(other[name], part, msg=name)
    assert not torch.isclose(sum(loss(make(heads, EVERYTHING, beyond=1)).values()), sum(parts.values()))
    gradient = torch.autograd.grad(sum(parts.values()), logits)[0]
    assert gradient[WINDOW].any()
    gradient[WINDOW] = 0
    assert not gradient.any()


@pytest.mark.parametrize("case", [case for case in CASES if case != "al_net"])
def test_what_is_valid_counts_as_if_the_image_ended_there(case: str) -> None:
    spec, heads = CASES[case]
    loss = build_loss(spec)
    cut = loss(make(heads, WINDOW))
    masked = loss(replace(make(heads, EVERYTHING), valid=valid_in(WINDOW)))
    assert masked.keys() == cut.keys()
    for name, part in cut.items():
        torch.testing.assert_close(masked[name], part, msg=name)


def test_a_contour_term_counts_gradients_of_valid_pixels_alone() -> None:
    # the last valid column's gradient would look at the first that is not
    spec, heads = CASES["al_net"]
    inputs = make(heads, EVERYTHING)
    target = torch.zeros(2, 1, SIZE, SIZE)
    target[..., 6:] = 1
    inputs = replace(inputs, targets=target)
    loss = build_loss(spec)
    everywhere = loss(replace(inputs, valid=valid_columns(SIZE)))["gradient"]
    torch.testing.assert_close(loss(replace(inputs, valid=valid_columns(10)))["gradient"], everywhere)  # band: 3 to 8
    assert not torch.isclose(loss(replace(inputs, valid=valid_columns(9)))["gradient"], everywhere)
    # no valid pixel beyond the contour, whichever side is not valid
    assert loss(replace(inputs, valid=valid_columns(6)))["gradient"] == 0
    assert loss(replace(inputs, targets=1 - target, valid=valid_columns(6)))["gradient"] == 0


@pytest.mark.parametrize("case", CASES)
def test_all_valid_is_no_mask(case: str) -> None:
    spec, heads = CASES[case]
    inputs = make(heads, EVERYTHING)
    plain, masked = build_loss(spec)(inputs), build_loss(spec)(replace(inputs, valid=valid_columns(SIZE)))
    for name, part in plain.items():
        torch.testing.assert_close(masked[name], part, msg=name)


@pytest.mark.parametrize("case", CASES)
def test_nothing_valid_has_a_loss_and_no_gradient(case: str) -> None:
    spec, heads = CASES[case]
    inputs = replace(make(heads, EVERYTHING), valid=valid_columns(0))
    logits = inputs.outputs.logits.requires_grad_()
    total = sum(build_loss(spec)(inputs).values())
    assert torch.isfinite(total)
    assert not torch.autograd.grad(total, logits)[0].any()


def test_a_nucleus_that_is_not_valid_is_not_present() -> None:
    inputs = make(CASES["unet3plus"][1], EVERYTHING)
    target = torch.zeros(2, 1, SIZE, SIZE)
    target[:, :, 10, 20] = 1
    valid = valid_in(WINDOW)
    valid[1] = 0  # of this image nothing is known
    part = build_loss("unet3plus")(replace(inputs, targets=target, valid=valid))["presence"]
    torch.testing.assert_close(part, -PRESENCE.log_softmax(1)[0, 0])


def test_a_mean_over_parts_of_a_batch_weighs_pixels_alike() -> None:
    values, valid = torch.arange(8.0).view(2, 1, 2, 2), torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 0]).view(2, 1, 2, 2)
    expected = (0 + 4 + 5 + 6) / 4
    assert masked_mean(values, valid).item() == expected
    sums: list[torch.Tensor] = []
    for row in (0, 1):
        masked_mean(values[[row]], valid[[row]], lambda s: sums.append(s) or s)  # type: ignore[func-returns-value]
    assert masked_mean(values[:1], valid[:1], lambda _: sums[0] + sums[1]).item() == expected
    assert masked_mean(values.expand(2, 3, 2, 2), valid, identity).item() == expected
    assert masked_mean(values, None) == values.mean()
