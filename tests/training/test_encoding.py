"""Target maps of label maps."""

import numpy as np
import torch

from hemalum.models.input import to_input
from hemalum.targets.representations import REPRESENTATIONS, find_representation
from hemalum.training.encoding import encode_targets, normalize_images


def test_soft_targets_are_shares_of_a_pixel() -> None:
    labels = np.zeros((1, 8, 8), np.int32)
    labels[0, 1:5, 2:7] = 1
    soft = encode_targets(labels, REPRESENTATIONS["distance"], supersampling=2)
    assert soft.shape == (1, 2, 4, 4)
    expected = np.array([[0, 0.5, 0.5, 0.25], [0, 1, 1, 0.5], [0, 0.5, 0.5, 0.25], [0, 0, 0, 0]])
    np.testing.assert_allclose(soft[0, 0].numpy(), expected)


def test_classes_become_maps_in_the_order_of_their_names() -> None:
    representation = find_representation("semantic", ("a", "b"))
    labels = np.array([[[0, 1, 1], [2, 2, 0]]], np.int32)
    maps = encode_targets(labels, representation, classes=[np.array([0, 2, 1], np.int32)])
    assert maps[0, 0].tolist() == [[0, 0, 0], [1, 1, 0]]
    assert maps[0, 1].tolist() == [[0, 1, 1], [0, 0, 0]]


def test_an_input_is_standardized_or_left_in_its_range() -> None:
    images = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(normalize_images(images, "RGB", "[0, 1]"), images)
    standardized = torch.stack([(images[:, channel] - 0.5) / 0.25 for channel in range(3)], 1)
    torch.testing.assert_close(normalize_images(images), standardized)
    torch.testing.assert_close(normalize_images(images, "gray", "[0, 1]"), to_input(images, "gray"))
