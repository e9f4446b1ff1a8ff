"""The losses of eU-Net3+ and U-Net3+ against cases worked out by hand and finite differences."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from hemalum.errors import HemalumError
from hemalum.losses import build_loss
from hemalum.losses.loss import LossInputs
from hemalum.losses.maps import soft_dice
from hemalum.losses.unet3plus import focal, ms_ssim, soft_iou
from hemalum.networks.contract import Outputs
from hemalum.targets.representations import Head

HEADS = (Head("sigmoid", ("foreground",)),)
PROBABILITY = torch.tensor([0.8, 0.4, 0.1, 0.5], dtype=torch.float64).view(1, 1, 2, 2)
TARGET = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64).view(1, 1, 2, 2)


def loss_inputs(outputs: Outputs, target: Tensor = TARGET) -> LossInputs:
    return LossInputs(outputs=outputs, targets=target, heads=HEADS)


def test_focal_by_hand() -> None:
    right = np.array([0.8, 0.4, 0.9, 0.5])
    expected = (-((1 - right) ** 2) * np.log(right)).mean()
    assert float(focal(PROBABILITY.logit(), TARGET)) == pytest.approx(expected, rel=1e-9)
    assert float(focal(PROBABILITY.logit(), TARGET, gamma=0)) == pytest.approx(-np.log(right).mean(), rel=1e-9)


def test_focal_of_certain_pixels_is_finite() -> None:
    logits = torch.tensor([200.0, -200.0]).view(1, 1, 1, 2).requires_grad_()
    loss = focal(logits, torch.tensor([0.0, 0.0]).view(1, 1, 1, 2))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(100)  # (200 + 0) / 2
    assert torch.isfinite(logits.grad).all()


def test_focal_dice_by_hand() -> None:
    right = np.array([0.8, 0.4, 0.9, 0.5])
    half_focal = 0.5 * (-((1 - right) ** 2) * np.log(right)).mean()
    overlap, total = 0.8 + 0.4, 1.8 + 2
    outputs = Outputs(PROBABILITY.logit())
    parts = build_loss("focal_dice")(loss_inputs(outputs))
    assert float(parts["focal"]) == pytest.approx(half_focal, rel=1e-6)
    assert float(parts["dice"]) == pytest.approx(0.5 * (1 - 2 * overlap / total), rel=1e-5)
    union = build_loss({"name": "focal_dice", "union": True})(loss_inputs(outputs))
    assert float(union["dice"]) == pytest.approx(0.5 * (1 - 2 * overlap / (total - overlap)), rel=1e-5)
    both = build_loss({"name": "focal_dice", "background": True})(loss_inputs(outputs))
    of_background = 1 - 2 * (0.9 + 0.5) / (4 - 1.8 + 2)
    assert float(both["dice"]) == pytest.approx(0.25 * (1 - 2 * overlap / total + of_background), rel=1e-5)


def test_a_graded_map_has_cross_entropy_beside_the_focal_dice_of_the_others() -> None:
    """DDU-Net's second decoder has it by hand; the parts of the first are those of its map alone."""
    graded = torch.tensor([0.5, 1.0, 0.0, 0.25], dtype=torch.float64).view(1, 1, 2, 2)
    both = LossInputs(
        Outputs(torch.cat([PROBABILITY, PROBABILITY], 1).logit()),
        torch.cat([TARGET, graded], 1),
        (Head("sigmoid", ("foreground", "distance")),),
    )
    parts = build_loss("focal_dice")(both)
    alone = build_loss("focal_dice")(loss_inputs(Outputs(PROBABILITY.logit())))
    assert float(parts["focal"]) == pytest.approx(float(alone["focal"]))
    assert float(parts["dice"]) == pytest.approx(float(alone["dice"]))
    p, t = np.array([0.8, 0.4, 0.1, 0.5]), np.array([0.5, 1.0, 0.0, 0.25])
    assert float(parts["distance"]) == pytest.approx(-(t * np.log(p) + (1 - t) * np.log(1 - p)).mean())
    valid = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64).view(1, 1, 2, 2)
    masked = build_loss("focal_dice")(replace(both, valid=valid))
    assert float(masked["distance"]) == pytest.approx(-(t * np.log(p) + (1 - t) * np.log(1 - p))[:2].mean())


def test_the_code_s_form_ranges_to_minus_one() -> None:
    assert float(soft_dice(TARGET, TARGET, over_union=True)) == pytest.approx(-1, abs=1e-5)


def test_iou_by_hand() -> None:
    two = torch.cat([PROBABILITY, TARGET])
    assert float(soft_iou(two, TARGET.expand(2, -1, -1, -1))) == pytest.approx((1 - 1.2 / 2.6) / 2, rel=1e-5)
    assert float(soft_iou(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))) == 0


def test_ms_ssim_against_its_formula() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 96, 96))
    c1, c2, product = 0.01**2, 0.03**2, 1.0
    for sigma in (0.5, 1.0, 2.0, 4.0, 8.0):

        def blur(image: np.ndarray, sigma: float = sigma) -> np.ndarray:
            return gaussian_filter(image, sigma, mode="constant", radius=16)

        mean_x, mean_y = blur(x), blur(y)
        vary_x, vary_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
        together = blur(x * y) - mean_x * mean_y
        product = product * (2 * together + c2) / (vary_x + vary_y + c2)
    product = product * (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    loss = ms_ssim(*(torch.from_numpy(image)[None, None] for image in (x, y)))
    assert float(loss) == pytest.approx(1 - product.mean(), rel=1e-4)


def test_auxiliary_logits_and_presence_are_added() -> None:
    logits = PROBABILITY.logit()
    extras = {"presence": torch.tensor([[0.0, math.log(3)]], dtype=torch.float64)}
    for name in ("focal_dice", "unet3plus"):
        alone = build_loss(name)(loss_inputs(Outputs(logits)))
        assert not {"aux_logits", "presence"} & set(alone)
        parts = build_loss({"name": name, "aux_weight": 0.5})(loss_inputs(Outputs(logits, (logits, logits), extras)))
        assert float(parts["aux_logits"]) == pytest.approx(float(sum(alone.values())))
        assert float(parts["presence"]) == pytest.approx(-math.log(3 / 4))
        empty = build_loss(name)(loss_inputs(Outputs(logits, (), extras), torch.zeros_like(TARGET)))
        assert float(empty["presence"]) == pytest.approx(-math.log(1 / 4))


@pytest.mark.parametrize("name", ["focal_dice", "unet3plus"])
def test_a_nucleus_in_any_map_is_present(name: str) -> None:
    targets = torch.zeros(1, 2, 2, 2)
    targets[0, 1, 0, 0] = 1
    extras = {"presence": torch.tensor([[0.0, math.log(3)]])}
    inputs = LossInputs(Outputs(torch.zeros(1, 2, 2, 2), (), extras), targets, (Head("sigmoid", ("a", "b")),))
    assert float(build_loss(name)(inputs)["presence"]) == pytest.approx(-math.log(3 / 4))


@pytest.mark.parametrize(
    "spec",
    [
        "focal_dice",
        {"name": "focal_dice", "union": True, "background": True},
        "unet3plus",
    ],
)
def test_gradient_agrees_with_finite_differences(spec: object) -> None:
    torch.manual_seed(0)
    loss = build_loss(spec)
    target = (torch.rand(2, 1, 6, 6, dtype=torch.float64) > 0.5).double()
    logits, aux, presence = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 1, 6, 6), (2, 1, 6, 6), (2, 2))
    )

    def total(logits: Tensor, aux: Tensor, presence: Tensor) -> Tensor:
        return sum(loss(loss_inputs(Outputs(logits, (aux,), {"presence": presence}), target)).values())

    torch.autograd.gradcheck(total, (logits, aux, presence))


@pytest.mark.parametrize("name", ["focal_dice", "unet3plus"])
def test_the_truth_costs_less_than_anything_near(name: str) -> None:
    torch.manual_seed(0)
    target = torch.zeros(1, 1, 32, 32)
    target[..., 8:20, 10:22] = 1
    perfect = torch.logit(target.clamp(1e-4, 1 - 1e-4))
    best = sum(build_loss(name)(loss_inputs(Outputs(perfect), target)).values())
    for _ in range(5):
        worse = sum(build_loss(name)(loss_inputs(Outputs(perfect + 4 * torch.randn_like(perfect)), target)).values())
        assert worse > best


@pytest.mark.fault
def test_an_unknown_option_is_named() -> None:
    with pytest.raises(HemalumError, match=r"loss 'focal_dice'.*gama.*did you mean 'gamma'"):
        build_loss({"name": "focal_dice", "gama": 1})
