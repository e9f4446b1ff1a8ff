"""PyTorch: CPU and CUDA."""

import numpy as np
import torch
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.models.map_model import build_map_model
from hemalum.models.model import Model

CUDA_BATCH = 16  # windows in one call: small ones alone would leave a GPU idle


class TorchEngine:
    """Runs the model eagerly, channels last; on CUDA in bf16 by default."""

    name = "torch"
    parallel = 1  # PyTorch spreads one call over all cores

    def __init__(
        self, model: Model, *, device: str = "auto", threads: int | None = None, precision: str | None = None
    ) -> None:
        if precision == "int8":
            raise HemalumError("engine 'torch' computes in f32 or bf16, not int8: use --engine openvino")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.device = torch.device(device)
            torch.empty(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            line = str(error).splitlines()[0]
            raise HemalumError(f"device '{device}' cannot be used: {line}") from error
        if threads is not None:
            torch.set_num_threads(threads)
        self.batch = CUDA_BATCH if self.device.type == "cuda" else 1
        self.precision = precision or ("bf16" if self.device.type == "cuda" else "f32")
        self._model = build_map_model(model.with_organ(None).card, model.tensors).to(self.device)

    def maps(self, images: NDArray[np.uint8], organ: int | None = None) -> NDArray[np.float32]:
        """See `Engine.maps`."""
        organ_N = None if organ is None else torch.full((len(images),), organ, device=self.device)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"),
        ):
            batch = torch.from_numpy(np.require(images, requirements=["C", "W"])).to(self.device)
            result: NDArray[np.float32] = self._model(batch, organ_N).float().cpu().numpy()
        return result
