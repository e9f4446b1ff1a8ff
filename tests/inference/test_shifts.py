"""Maps averaged over shifts: against averages made by hand, and what the result says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import hemalum
from builders.slide_runs import same_as_nuclei
from builders.slides import draw_picture, save_pyramid
from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.inference.segment import as_engine
from hemalum.inference.shifts import COUNTS, SHIFTS, ShiftedEngine, check_shifts
from hemalum.inference.slide import segment_slide
from hemalum.inference.tta import SymmetricEngine, looks_of, without_tta
from hemalum.models.model import Model, load_model
from hemalum.targets.representations import REPRESENTATIONS

DISTANCE = REPRESENTATIONS["distance"]


@dataclass
class Blocks:
    """What a network that halves its image sees: the red channel, and its mean over blocks of `side` px."""

    side: int = 4
    name: str = "blocks"
    precision: str = "f32"
    parallel: int = 2
    batch: int = 1
    output_upsampling: int = 1

    def maps(self, images: NDArray[np.uint8], organ: int | None = None) -> NDArray[np.float32]:
        red = images[..., 0].astype(np.float32)
        count, height, width = red.shape
        means = red.reshape(count, height // self.side, self.side, width // self.side, self.side).mean((2, 4))
        maps = np.stack([red, means.repeat(self.side, 1).repeat(self.side, 2)], axis=1)
        return maps.repeat(self.output_upsampling, 2).repeat(self.output_upsampling, 3)


def draw(height: int, width: int, count: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("count", COUNTS)
def test_the_mean_by_hand(count: int) -> None:
    """A pixel counts with each shift that leaves it in the window; a block is that of the shifted image."""
    image = draw(8, 12, count=2)
    maps = ShiftedEngine(Blocks(), count).maps(image)
    assert maps.shape == (2, 2, 8, 12)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps[:, 0], image[..., 0], rtol=1e-6)
    red = image[..., 0].astype(float)
    expected = np.zeros((2, 8, 12))
    for n, y, x in np.ndindex(2, 8, 12):
        means = []
        for down, right in SHIFTS[:count]:
            if y + down >= 8 or x + right >= 12:
                continue
            top, left = (y + down) // 4 * 4 - down, (x + right) // 4 * 4 - right  # of its block, in the image
            block = [red[n, max(v, 0), max(u, 0)] for v in range(top, top + 4) for u in range(left, left + 4)]
            means.append(np.mean(block))
        expected[n, y, x] = np.mean(means)
    np.testing.assert_allclose(maps[:, 1], expected, rtol=1e-5)


def test_the_first_four_and_the_next_four_have_every_row_and_column_of_a_block_once() -> None:
    assert SHIFTS[0] == (0, 0)
    assert len(set(SHIFTS)) == len(SHIFTS) == COUNTS[-1]
    for four in (SHIFTS[:4], SHIFTS[4:]):
        for axis in (0, 1):
            assert sorted(shift[axis] for shift in four) == [0, 1, 2, 3]


def test_an_image_that_begins_a_pixel_later_gives_nearly_the_same() -> None:
    image = draw(48, 48)
    differs = {}
    for count in COUNTS:
        engine = ShiftedEngine(Blocks(), count)
        first, later = engine.maps(image[:, :40, :40]), engine.maps(image[:, 1:41, 1:41])
        differs[count] = float(np.abs(first[:, 1, 9:33, 9:33] - later[:, 1, 8:32, 8:32]).mean())
    assert differs[8] < differs[4] < differs[2] < differs[1]
    assert differs[4] < 0.5 * differs[1]


def test_a_shift_by_whole_blocks_changes_nothing() -> None:
    image = draw(48, 48)
    engine = ShiftedEngine(Blocks(), 4)
    first, later = engine.maps(image[:, :40, :40]), engine.maps(image[:, 4:44, 4:44])
    np.testing.assert_allclose(first[:, :, 8:32, 8:32], later[:, :, 4:28, 4:28], rtol=1e-6)


def test_enlarged_maps_shift_back_by_as_much() -> None:
    image = draw(8, 12)
    large = ShiftedEngine(Blocks(output_upsampling=2), 4).maps(image)
    np.testing.assert_allclose(large, ShiftedEngine(Blocks(), 4).maps(image).repeat(2, 2).repeat(2, 3), rtol=1e-6)


def test_maps_that_an_engine_keeps_are_not_written_to() -> None:
    kept = np.ones((1, 2, 4, 4), np.float32)

    class Keeping(Blocks):
        def maps(self, images: NDArray[np.uint8], organ: int | None = None) -> NDArray[np.float32]:
            return kept

    ShiftedEngine(Keeping(), 4).maps(draw(4, 4))
    assert (kept == 1).all()


@pytest.mark.fault
@pytest.mark.parametrize("count", [0, -1, 3, 16])
def test_another_number_is_refused(count: int) -> None:
    with pytest.raises(HemalumError, match=rf"^shifts is {count}: it can be 1 \(none\), 2, 4 or 8$"):
        check_shifts(count)


@pytest.mark.fault
def test_it_is_refused_before_the_image_is_opened(dark_model: Path, tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match=r"^shifts is 3: "):
        hemalum.segment(tmp_path / "absent.png", dark_model, shifts=3)


def test_turns_and_shifts_go_together_and_neither_is_done_twice(dark_model: Path) -> None:
    model = load_model(dark_model)
    plain = Blocks()
    both = as_engine(plain, model, tta=True, shifts=4)
    assert looks_of(both) == (True, 4)
    assert isinstance(both, SymmetricEngine)
    assert without_tta(both) is plain
    assert looks_of(as_engine(both, model)) == (True, 4)
    assert looks_of(as_engine(both, model, shifts=2)) == (True, 2)
    assert looks_of(as_engine(as_engine(plain, model, shifts=2), model, tta=True)) == (True, 2)
    assert looks_of(plain) == (False, 1)
    assert as_engine(plain, model) is plain


def test_the_result_says_it(dark_model: Path, mini: Path) -> None:
    sample = next(iter(Dataset.open(mini)))
    options: dict[str, Any] = {"mpp": 0.5, "engine": "torch", "device": "cpu"}
    plain, shifted = (hemalum.segment(sample.image, dark_model, shifts=count, **options) for count in (1, 4))
    assert (plain.notes.get("shifts"), shifted.notes["shifts"]) == (None, 4)
    # what looks at single pixels is the same wherever its blocks lie
    np.testing.assert_array_equal(shifted.label_map(), plain.label_map())
    assert hemalum.evaluate(dark_model, mini, engine="torch", shifts=2).summary["shifts"] == 2
    assert "shifts" not in hemalum.evaluate(dark_model, mini, engine="torch").summary


def test_a_slide_is_seen_from_as_many_shifts_as_an_image(tiny_model: Model, tmp_path: Path) -> None:
    path = save_pyramid(tmp_path / "s.tif", draw_picture(330, 280), levels=1, tile=64)
    options: dict[str, Any] = {"model": tiny_model, "engine": "torch", "precision": "f32", "stain": "he"}
    held = {}
    for count in (1, 4):
        store = segment_slide(path, tmp_path / f"{count}", tissue_mask=False, **options, shifts=count)
        nuclei = hemalum.segment(path, **options, shifts=count)
        assert nuclei.count > 20
        assert same_as_nuclei(store, nuclei)
        assert store.run.settings.get("shifts", 1) == store.notes.get("shifts", 1) == count
        held[count] = store.nuclei().table
    assert not held[1].equals(held[4])
    with pytest.raises(HemalumError, match=r"\(settings\.shifts is 4 there, None here\)"):
        segment_slide(path, tmp_path / "4", tissue_mask=False, **options)


@pytest.mark.fault
def test_it_needs_a_network(mini: Path) -> None:
    with pytest.raises(HemalumError, match="shifts moves what a network sees, and 'classical' runs none"):
        hemalum.evaluate("classical", mini, shifts=4)


def test_a_trained_network_hangs_less_on_where_an_image_begins(mini: Path, recipe: Any, tmp_path: Path) -> None:
    from hemalum.training.train import train

    model = load_model(train(recipe, [mini], tmp_path / "run", accelerator="cpu"))
    image = next(iter(Dataset.open(mini))).image[None]
    differs = {}
    for count in (1, 4):
        engine = as_engine("torch", model, device="cpu", precision="f32", shifts=count)
        first, later = (engine.maps(np.ascontiguousarray(image[:, n : n + 32, n : n + 32])) for n in (0, 1))
        differs[count] = float(np.abs(first[..., 9:24, 9:24] - later[..., 8:23, 8:23]).mean())
    assert differs[4] < 0.7 * differs[1]
