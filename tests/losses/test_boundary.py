"""AL-Net's loss against cases worked out by hand, finite differences, and its schedules."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from hemalum.errors import HemalumError
from hemalum.losses import build_loss
from hemalum.losses.boundary import boundary_loss, contour_band, gradient_loss, sobel
from hemalum.losses.loss import Loss, LossInputs
from hemalum.networks.contract import Outputs
from hemalum.targets.extra_targets import EXTRA_TARGETS, signed_distance
from hemalum.targets.representations import Head

FOREGROUND = (Head("sigmoid", ("foreground",)),)


def disc(size: int = 24, radius: float = 6.0) -> Tensor:
    y, x = np.mgrid[:size, :size]
    return torch.from_numpy(((y - size / 2) ** 2 + (x - size / 2) ** 2 < radius**2).astype(np.float64))[None, None]


def loss_inputs(logits: Tensor, target: Tensor, heads: tuple[Head, ...] = FOREGROUND, **more: object) -> LossInputs:
    distances = np.stack([signed_distance(one.numpy().astype(np.int32)) for one in target[:, 0]])
    extra = {"signed_distance": torch.from_numpy(distances)[:, None].to(logits)}
    return LossInputs(outputs=Outputs(logits), targets=target.to(logits), heads=heads, extra=extra, **more)


def test_signed_distance_of_a_line_of_pixels() -> None:
    labels = np.array([[0, 0, 3, 3, 7, 7, 7, 0]], np.int32)  # touching nuclei have no contour between them
    np.testing.assert_array_equal(signed_distance(labels), [[2, 1, 0, -1, -2, -1, 0, 1]])
    assert EXTRA_TARGETS["signed_distance"] is signed_distance


def test_signed_distance_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    labels = ndimage.label(ndimage.gaussian_filter(rng.normal(size=(40, 56)), 3) > 0.05)[0].astype(np.int32)
    inside = labels > 0
    expected = np.where(inside, 1 - ndimage.distance_transform_edt(inside), ndimage.distance_transform_edt(~inside))
    distance = signed_distance(labels)
    assert distance.dtype == np.float32
    np.testing.assert_allclose(distance, expected, rtol=1e-5)


@pytest.mark.parametrize("fill", [0, 4])
def test_where_there_is_no_contour_there_is_no_distance(fill: int) -> None:
    np.testing.assert_array_equal(signed_distance(np.full((5, 6), fill, np.int32)), np.zeros((5, 6)))


def test_boundary_loss_by_hand_and_least_at_the_truth() -> None:
    distance = torch.tensor([[[[2.0, 1.0, 0.0, -1.0]]]])
    assert boundary_loss(torch.tensor([[[[0.5, 0.0, 1.0, 1.0]]]]), distance).item() == pytest.approx(0.0)
    assert boundary_loss(torch.tensor([[[[1.0, 1.0, 1.0, 1.0]]]]), distance).item() == pytest.approx(0.5)
    truth = disc()
    phi = torch.from_numpy(signed_distance(truth[0, 0].numpy().astype(np.int32)))[None, None].double()
    best = boundary_loss(truth, phi)
    for other in (disc(radius=5), disc(radius=8), torch.roll(truth, 3, 3), torch.full_like(truth, 0.5)):
        assert boundary_loss(other, phi) > best


def test_sobel_of_a_step_and_of_a_ramp() -> None:
    step = torch.zeros(1, 1, 5, 6)
    step[..., 3:] = 1
    gradients = sobel(step)
    assert gradients.shape == (1, 2, 5, 6)
    assert gradients[0, 0, 2].tolist() == [0, 0, 1, 1, 0, 0]  # as far to the edges: the map goes on beyond them
    assert not gradients[0, 1].any()
    ramp = torch.arange(6.0).view(1, 1, 6, 1).expand(1, 1, 6, 6)
    assert sobel(ramp)[0, 1, 2].tolist() == [2.0] * 6  # central differences span two pixels


def test_the_band_lies_around_the_contour() -> None:
    step = torch.zeros(1, 1, 9, 12)
    step[..., 6:] = 1
    assert contour_band(step, 1)[0, 0, 4].tolist() == [0] * 5 + [1, 1] + [0] * 5
    assert contour_band(step, 3)[0, 0, 4].tolist() == [0] * 3 + [1] * 6 + [0] * 3
    assert not contour_band(torch.ones(1, 1, 9, 9), 3).any()  # the edge of the crop is no contour


def gradient_loss_by_loops(p: Tensor, y: Tensor, band: int, tau: float) -> tuple[float, float]:
    """The page's equations, pixel by pixel."""
    height, width = p.shape
    sizes, directions = [], []

    def slope(values: Tensor, r: int, c: int) -> tuple[float, float]:
        along_x = along_y = 0.0
        for offset, weight in ((-1, 1), (0, 2), (1, 1)):
            for side in (-1, 1):
                row, column = min(max(r + offset, 0), height - 1), min(max(c + side, 0), width - 1)
                along_x += side * weight * float(values[row, column]) / 4
                row, column = min(max(r + side, 0), height - 1), min(max(c + offset, 0), width - 1)
                along_y += side * weight * float(values[row, column]) / 4
        return along_x, along_y

    for r in range(height):
        for c in range(width):
            rows = range(max(0, r - band), min(height, r + band + 1))
            columns = range(max(0, c - band), min(width, c + band + 1))
            if len({float(y[i, j]) for i in rows for j in columns}) < 2:
                continue  # no pixel of the other side in reach
            (px, py), (yx, yy) = slope(p, r, c), slope(y, r, c)
            sizes.append(abs(px - yx) + abs(py - yy))
            norm_p, norm_y = math.hypot(px, py), math.hypot(yx, yy)
            cosine = (px * yx + py * yy) / (norm_p * norm_y) if norm_p * norm_y else 0.0
            directions.append(min(1.0, norm_p / tau) * (1 - cosine) if norm_y else 0.0)
    return sum(sizes) / len(sizes), sum(directions) / len(directions)


@pytest.mark.parametrize(("scale", "tau", "band"), [(1.0, 0.5, 3), (0.2, 0.5, 1), (4.0, 0.1, 2)])
def test_gradient_loss_is_its_equation(scale: float, tau: float, band: int) -> None:
    torch.manual_seed(0)
    target = disc(14, 4)
    probability = (scale * torch.randn(1, 1, 14, 14, dtype=torch.float64)).sigmoid()
    size, direction = gradient_loss(probability, target, band, tau)
    expected = gradient_loss_by_loops(probability[0, 0], target[0, 0], band, tau)
    assert (size.item(), direction.item()) == pytest.approx(expected, rel=1e-4)


def test_gradient_loss_by_hand() -> None:
    step = torch.zeros(1, 1, 5, 8)
    step[..., 4:] = 1
    # a flat prediction: the band of 1 px is the two columns of the edge, each with a gradient of 1 missing
    size, direction = gradient_loss(torch.full_like(step, 0.5), step, band=1)
    assert size.item() == pytest.approx(1.0)
    assert direction.item() == pytest.approx(0.0, abs=1e-5)  # it has no direction
    # the opposite of the truth: twice the size, and the opposite direction
    size, direction = gradient_loss(1 - step, step, band=1)
    assert size.item() == pytest.approx(2.0)
    assert direction.item() == pytest.approx(2.0, abs=1e-5)
    # the opposite again, a quarter as steep: half of the direction counts
    assert gradient_loss(0.25 * (1 - step), step, band=1)[1].item() == pytest.approx(1.0, abs=1e-4)
    # across the truth: a gradient along y of half the size, a quarter in the rows at the edge, of which half counts
    across = torch.arange(5.0).view(1, 1, 5, 1).expand(1, 1, 5, 8) / 4
    size, direction = gradient_loss(across, step, band=1)
    assert direction.item() == pytest.approx((0.5 + 3 + 0.5) / 5, abs=1e-4)
    assert size.item() == pytest.approx(1 + (0.25 + 3 * 0.5 + 0.25) / 5)  # half of it in the rows at the edge
    # in a band of 3 px, six columns, the edge's share is a third
    assert gradient_loss(1 - step, step, band=3)[0].item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.05, 0.2, 1.0])
def test_on_a_flat_map_the_direction_is_no_louder_than_the_other_terms(noise: float) -> None:
    """By the loss's gradient on logits; without the weight it is hundreds of times that of Dice."""
    torch.manual_seed(0)
    target = torch.cat([disc(48, 9), disc(48, 14)])
    smooth = torch.nn.functional.avg_pool2d(torch.randn(2, 1, 48, 48, dtype=torch.float64), 5, 1, 2) * 5
    logits = (noise * smooth).requires_grad_()

    def pull(**options: object) -> float:
        loss = build_loss({"name": "al_net", "ramp": 0, "boundary": 0} | options)
        return float(torch.autograd.grad(loss(loss_inputs(logits, target))["gradient"], logits)[0].norm())

    dice = torch.autograd.grad(build_loss("dice")(loss_inputs(logits, target))["dice"], logits)[0].norm()
    assert pull(direction=True) < 6 * float(dice)
    assert pull(direction=True) > pull(direction=False)  # it pulls even where the map is flat


def test_gradient_loss_is_nothing_at_the_truth_and_without_a_contour() -> None:
    truth = disc().float()
    for part in gradient_loss(truth, truth):
        assert part.item() == pytest.approx(0.0, abs=1e-5)
    empty = torch.zeros(1, 1, 8, 8)
    probability = torch.rand(1, 1, 8, 8, requires_grad=True)
    total = torch.stack(gradient_loss(probability, empty)).sum()
    total.backward()
    assert total.item() == 0
    assert torch.isfinite(probability.grad).all()


def test_a_flat_prediction_has_a_finite_gradient() -> None:
    probability = torch.full((1, 1, 24, 24), 0.3, dtype=torch.float64, requires_grad=True)
    torch.stack(gradient_loss(probability, disc())).sum().backward()
    assert torch.isfinite(probability.grad).all()
    assert probability.grad.abs().sum() > 0


@pytest.mark.parametrize("spec", ["dice", "al_net", {"name": "al_net", "rebalance": 0.05, "direction": False}])
def test_finite_differences(spec: object) -> None:
    torch.manual_seed(0)
    target = torch.cat([disc(12, 3.5), torch.zeros(1, 1, 12, 12, dtype=torch.float64)])
    logits = torch.randn(2, 1, 12, 12, dtype=torch.float64, requires_grad=True)
    loss = build_loss(spec)

    def total(logits: Tensor) -> Tensor:
        return torch.stack(list(loss(loss_inputs(logits, target, phase_step=3, run_steps=60)).values())).sum()

    assert torch.autograd.gradcheck(total, logits)


def parts(loss: Loss, **more: object) -> dict[str, float]:
    torch.manual_seed(0)
    logits = torch.randn(1, 1, 24, 24, dtype=torch.float64)
    return {name: value.item() for name, value in loss(loss_inputs(logits, disc(), **more)).items()}


def test_parts_are_weighed_and_add_up_to_the_equation() -> None:
    unit = parts(build_loss({"name": "al_net", "boundary": 1.0, "gradient": 1.0}))
    weighted = parts(build_loss({"name": "al_net", "boundary": 0.1, "gradient": 0.5}))
    assert set(weighted) == {"dice", "boundary", "gradient"}
    assert weighted["dice"] == parts(build_loss("dice"))["dice"] == unit["dice"]
    assert weighted["boundary"] == pytest.approx(0.1 * unit["boundary"])
    assert weighted["gradient"] == pytest.approx(0.5 * unit["gradient"])
    torch.manual_seed(0)
    probability = torch.randn(1, 1, 24, 24, dtype=torch.float64).sigmoid()
    assert unit["gradient"] == pytest.approx(sum(part.item() for part in gradient_loss(probability, disc())))


def test_the_terms_fade_in() -> None:
    loss = build_loss({"name": "al_net", "ramp": 0.1})
    full = parts(build_loss({"name": "al_net", "ramp": 0}), run_steps=400)
    assert parts(loss) == full  # on validation images, where nothing is trained
    for step, share in ((0, 0.0), (10, 0.25), (40, 1.0), (1000, 1.0)):
        faded = parts(loss, phase_step=step, run_steps=400)
        assert faded["dice"] == full["dice"]
        assert faded["boundary"] == pytest.approx(share * full["boundary"])
        assert faded["gradient"] == pytest.approx(share * full["gradient"])
        target = disc()
        assert loss.factors(loss_inputs(torch.zeros_like(target), target, phase_step=step, run_steps=400)) == {
            "ramp": share,
            "boundary_weight": pytest.approx(0.1 * share),
            "gradient_weight": pytest.approx(0.5 * share),
        }


def test_rebalancing_moves_weight_from_dice_to_the_boundary_with_each_hundredth_of_the_run() -> None:
    loss = build_loss({"name": "al_net", "boundary": 0.1, "rebalance": 0.25, "ramp": 0})
    target = disc()
    rows = [
        loss.factors(loss_inputs(torch.zeros_like(target), target, phase_step=step, run_steps=400))
        for step in (0, 3, 4, 11, 16, 36)
    ]
    assert [row["dice_weight"] for row in rows] == pytest.approx([1, 1, 0.75, 0.5, 0.1, 0.1])
    # all that Dice loses, and no more: together they weigh what they weighed before
    assert [row["boundary_weight"] for row in rows] == pytest.approx([0.1, 0.1, 0.35, 0.6, 1.0, 1.0])
    before, after = parts(loss), parts(loss, phase_step=8, run_steps=400)
    assert after["dice"] == pytest.approx(0.5 * before["dice"])
    assert after["boundary"] == pytest.approx(6 * before["boundary"])
    # what has moved is not faded in: it would be lost meanwhile
    fading = build_loss({"name": "al_net", "boundary": 0.1, "rebalance": 0.25, "ramp": 0.1})
    row = fading.factors(loss_inputs(torch.zeros_like(target), target, phase_step=10, run_steps=400))
    assert (row["ramp"], row["dice_weight"]) == (0.25, 0.5)
    assert row["boundary_weight"] == pytest.approx(0.25 * 0.1 + 0.5)


def test_the_terms_at_the_contour_look_at_the_foreground_only() -> None:
    heads = (Head("sigmoid", ("foreground",)), Head("sigmoid", ("edge",)))
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 24, 24, dtype=torch.float64)
    target = torch.cat([disc(), 1 - disc()], 1)
    loss = build_loss("al_net")
    both = loss(loss_inputs(logits, target, heads))
    alone = loss(loss_inputs(logits[:, :1], target[:, :1]))
    assert both["boundary"] == alone["boundary"]
    assert both["gradient"] == alone["gradient"]
    assert both["dice"] != alone["dice"]


def test_sums_go_over_all_parts_of_a_shared_batch() -> None:
    torch.manual_seed(0)
    target = torch.cat([disc(), disc(radius=9)])
    probability = torch.rand(2, 1, 24, 24, dtype=torch.float64)
    full_batch = gradient_loss(probability, target)
    sums: list[Tensor] = []
    for index in (0, 1):
        gradient_loss(probability[[index]], target[[index]], all_reduce_sum=lambda s: sums.append(s) or s)
    shared = gradient_loss(probability[:1], target[:1], all_reduce_sum=lambda s: torch.stack(sums).sum(0))
    assert [part.item() for part in shared] == pytest.approx([part.item() for part in full_batch])


@pytest.mark.fault
@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (
            (Head("sigmoid", ("foreground",)), Head("sigmoid", ("distance",))),
            "'distance' is graded: take loss 'maps'",
        ),
        ((Head("sigmoid", ("edge",)),), "needs a map 'foreground'; there are edge"),
    ],
)
def test_maps_that_do_not_fit_are_refused(heads: tuple[Head, ...], message: str) -> None:
    target = disc().expand(1, len(heads), 24, 24)
    with pytest.raises(HemalumError, match=message):
        build_loss("al_net")(loss_inputs(torch.zeros_like(target), target, heads))


@pytest.mark.fault
@pytest.mark.parametrize("key", ["boundary", "gradient", "rebalance", "ramp"])
def test_weights_are_not_negative(key: str) -> None:
    with pytest.raises(HemalumError, match=f"loss 'al_net', '{key}'"):
        build_loss({"name": "al_net", key: -1})
    assert math.isfinite(sum(parts(build_loss("al_net")).values()))
