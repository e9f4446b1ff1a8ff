"""The int8 form of a network, made with NNCF (extra `int8`) from windows that the network would see."""

import contextlib
import importlib.util
import io
import logging
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from hemalum.cache import scratch_folder
from hemalum.errors import HemalumError, counted, one_line
from hemalum.models.engines.openvino import convert
from hemalum.models.file import Int8Network
from hemalum.models.model import UNKNOWN_ORGAN, Model

log = logging.getLogger(__name__)

Window = tuple[NDArray[np.uint8], int | None]  # images (N, H, W, 3) and their organ, as `Engine.maps` takes them


def check_int8(model: Model) -> None:
    """Raise HemalumError where the extra is missing, or the model is none that gets an int8 form."""
    if importlib.util.find_spec("nncf") is None:
        raise HemalumError("int8 needs nncf: pip install 'hemalum[int8]'")
    if model.card.sam is not None:
        raise HemalumError(f"model '{model.card.name}' looks through a SAM encoder, which gets no int8 form")


def nncf_version() -> str:
    """What makes int8 forms here, for the card."""
    return f"nncf {version('nncf')}, openvino {version('openvino')}"


def quantize_network(model: Model, windows: Sequence[Window], **changes: Any) -> Int8Network:
    """Make the int8 form of a network: weights by channel, activations by the ranges that they have on `windows`.

    Symmetric ranges, and biases corrected layer by layer for what rounding shifts. Asymmetric ranges (NNCF's preset
    "mixed") and the quick correction cost more, and to leave first and last layer in float gains nothing
    (docs/decisions.md, benchmarks/int8.py). `changes` are other options of `nncf.quantize`.
    Raises HemalumError as `check_int8` does, or where NNCF fails.
    """
    check_int8(model)
    inputs = []
    for images, organ in windows:
        values: dict[str, NDArray[Any]] = {"images": images}
        if model.card.organs:
            values["organ"] = np.full(len(images), UNKNOWN_ORGAN if organ is None else organ, np.int64)
        inputs.append(values)
    log.info("model '%s': ranges for int8 on %s", model.card.name, counted(len(inputs), "window"))
    with quiet_nncf() as nncf, scratch_folder() as folder:
        options = {"preset": nncf.QuantizationPreset.PERFORMANCE, "fast_bias_correction": False} | changes
        try:
            quantized = nncf.quantize(
                convert(model.with_organ(None).card, model.tensors),
                nncf.Dataset(inputs),
                subset_size=len(inputs),
                **options,
            )
        except (RuntimeError, nncf.errors.ValidationError, nncf.errors.InternalError) as error:
            raise HemalumError(f"model '{model.card.name}' cannot be quantized: {one_line(error)}") from error
        path = folder / "int8.xml"
        ov.save_model(quantized, path, compress_to_fp16=False)
        return Int8Network(*(np.fromfile(path.with_suffix(ending), np.uint8) for ending in (".xml", ".bin")))


@contextlib.contextmanager
def quiet_nncf() -> Iterator[Any]:
    """NNCF without its bars and its reports home, which it sends at import unless it takes itself to be in a test."""
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        import nncf
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        yield nncf
