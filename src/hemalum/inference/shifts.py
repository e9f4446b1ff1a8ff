"""Maps averaged over shifts: what is found no longer hangs on where the image begins.

A network that halves its image some times sees it in blocks of pixels, and an image that begins one pixel later is
cut into other blocks: borders of nuclei move by a fraction of a pixel, and what is barely found is lost or won
(`benchmarks/stability.py`). The mean over several positions of the blocks moves less. It is done window by window,
before separation, so everything that takes an engine takes this one.
"""

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.inference.maps import run_engine
from hemalum.models.engines.engine import Engine
from hemalum.settings import as_whole_number

# px down and to the right, of the network's input. Most is won on blocks of 2 and 4 px: the first four have every row
# and every column of those once, and so have the next four
SHIFTS = ((0, 0), (1, 2), (2, 3), (3, 1), (0, 2), (1, 0), (2, 1), (3, 3))
COUNTS = (1, 2, 4, 8)  # how many of them can be asked for


def check_shifts(count: int) -> int:
    """How many shifts are asked for. Raises HemalumError for another number than 1, 2, 4 or 8."""
    number: int = as_whole_number(count, "shifts")
    if number not in COUNTS:
        raise HemalumError(f"shifts is {count}: it can be 1 (none), 2, 4 or 8")
    return number


class ShiftedEngine:
    """An engine whose maps are the mean over the first `count` of `SHIFTS` of those of `engine`, shifted back.

    What a shift brings in repeats the border, and what it pushes out, up to 3 px at the lower and right border of a
    window, is the mean of the others. Raises HemalumError as `check_shifts` does.
    """

    def __init__(self, engine: Engine, count: int) -> None:
        self.engine, self.count = engine, check_shifts(count)
        self.name, self.precision = engine.name, engine.precision
        self.parallel, self.batch = engine.parallel, engine.batch

    def maps(self, images: NDArray[np.uint8], organ: int | None = None) -> NDArray[np.float32]:
        """See `Engine.maps`."""
        height, width = images.shape[1:3]
        total = np.array(run_engine(self.engine, images, organ), np.float32)
        upsampling = total.shape[2] // height
        looks = np.ones(total.shape[2:], np.float32)
        for down, right in SHIFTS[1 : self.count]:
            seen = np.pad(images, ((0, 0), (down, 0), (right, 0), (0, 0)), "edge")[:, :height, :width]
            rows, columns = (height - down) * upsampling, (width - right) * upsampling
            maps = run_engine(self.engine, np.ascontiguousarray(seen), organ)
            total[:, :, :rows, :columns] += maps[:, :, down * upsampling :, right * upsampling :]
            looks[:rows, :columns] += 1
        return total / looks
