"""The colours of an image brought to those that its model was trained on, before the network sees them.

Only the network sees them: what is measured on nuclei is measured on the image as it is.
"""

from hemalum.data.stain_normalisation import StainMap, StainNormaliser, sample_pixels
from hemalum.inference.image import ImageSource
from hemalum.inference.model import Model


def find_stain(source: ImageSource, model: Model, *, warn: bool = True) -> StainMap | None:
    """What to do to every pixel of an image; None when the model asks for nothing or the image is unfit.

    Reads a regular sample of the image's rows. An unfit image is named in the log, unless `warn` is False.
    Raises HemalumError for an unfit image where the model's card says `unfit: refuse`.
    """
    if model.card.stain is None:
        return None
    normaliser = StainNormaliser(model.card.stain)
    change = normaliser.match(sample_pixels(source.read, source.shape), source.name)
    if warn:
        normaliser.warn()
    return change


def describe_stain(change: StainMap | None, model: Model) -> dict[str, str]:
    """What the result says of it."""
    if model.card.stain is None:
        return {}
    return {"stain_normalisation": "none, the image is unfit" if change is None else change.method}
