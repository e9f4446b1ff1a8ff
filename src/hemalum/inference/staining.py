"""The stain of an image: recognized or set, and what the network is shown of it.

A network that was trained on H&E is shown H-DAB and fluorescence in H&E's colors
(`hemalum.data.stain.he_appearance`). One that was trained on such a stain sees it as it is: its card says so. What is
measured on nuclei is measured on the image as it is.
"""

import logging
from dataclasses import dataclass, field
from typing import Literal

from hemalum.data.stain.he_appearance import ColorChange, FluorescenceMap, HdabMap, HdabStains, find_hdab
from hemalum.data.stain.normalization import StainMap, StainNormalizer, sample_pixels
from hemalum.data.stain.recognition import (
    LEAST_PINK,
    STAIN_NAMES,
    STAIN_TITLES,
    Recognition,
    Stain,
    recognize_stain,
)
from hemalum.errors import HemalumError, nearest
from hemalum.models.model import Model
from hemalum.nuclei.ihc_score import Positive, check_positive
from hemalum.slides.slide import Slide

log = logging.getLogger(__name__)

STAINS = ("auto", *STAIN_NAMES)
UNCHANGED = "as it is"


@dataclass(frozen=True, slots=True, eq=False)
class Staining:
    """The stain of an image, where that is from, and what is done to its colors before the network (None: nothing).

    `doubt` says why the stain that was set may not be the image's, `gray` that it has no color to tell it by. `notes`
    are what the result says of it all.
    """

    stain: Stain
    source: Literal["recognized", "set"]
    change: ColorChange | None = None
    doubt: str = ""
    gray: bool = False
    notes: dict[str, str] = field(default_factory=dict)


def read_stain(text: str) -> str:
    """One of `STAINS` by its name or by how it is written: "H&E", "H-DAB". Raises HemalumError for another."""
    written = {_letters(title): name for name, title in STAIN_TITLES.items()}
    names = {name: name for name in STAINS} | written
    if not isinstance(text, str) or _letters(text) not in names:
        raise HemalumError(f"unknown stain '{text}'{nearest(str(text), STAINS)}")
    return names[_letters(text)]


def _letters(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalpha())


def check_stain(stain: str, positive: Positive = None) -> str:
    """The stain that is asked for. Thresholds of DAB ask for H-DAB where nobody sets the stain.

    Raises HemalumError for an unknown stain, impossible thresholds, or thresholds of DAB for another stain.
    """
    stain = read_stain(stain)
    if check_positive(positive) is None:
        return stain
    if stain not in ("auto", "hdab"):
        raise HemalumError(f"positive is a threshold of DAB, and stain {stain} has none: it goes with stain hdab")
    return "hdab"


def find_staining(source: Slide, model: Model, stain: str = "auto", *, warn: bool = True) -> Staining:
    """Recognize the stain of an image, or take the one that is set, and decide what the network is shown.

    Reads a regular sample of the image's rows, so that windows and bands change nothing. What speaks against a stain
    that is set is named in the log, unless `warn` is False. Raises HemalumError as `find_stain` does.
    """
    pixels = sample_pixels(source.rows, source.shape)
    seen = recognize_stain(pixels)
    name = seen.stain if stain == "auto" else next(one for one in STAIN_NAMES if one == stain)
    hdab = find_hdab(pixels) if name == "hdab" else None
    doubt = "" if stain == "auto" else _doubt(name, seen, hdab)
    if doubt and warn:
        log.warning("%s: stain %s is set, but %s: its figures are marked", source.name, name, doubt)
    if warn and stain == "auto" and name != "he":
        log.info("%s: %s, recognized by its colors; stain sets it", source.name, seen.description)
    notes = {"stain": name, "stain_source": "recognized" if stain == "auto" else "set"}
    if doubt:
        notes["stain_doubt"] = doubt
    change: ColorChange | None
    if name == "he":
        change = normalization = find_stain(source, model, warn=warn)
        if model.card.stain is not None:
            notes["stain_normalization"] = (
                "none, the image is unfit" if normalization is None else normalization.method
            )
        if seen.gray:
            notes["network_input"] = f"{seen.description}, {UNCHANGED}"
    elif name in model.card.native_stains:
        change, notes["network_input"] = None, UNCHANGED
    elif hdab is not None:
        change, notes["network_input"] = HdabMap(hdab), f"{hdab.description}; DAB taken out"
    else:
        change, notes["network_input"] = FluorescenceMap.of(pixels), "inverted, in the color of hematoxylin"
    if model.card.classes and name != "he" and change is not None:
        notes["class_doubt"] = f"model '{model.card.name}' learned its classes on H&E, not on {STAIN_TITLES[name]}"
        if warn:
            log.warning("%s: %s: they are marked", source.name, notes["class_doubt"])
    return Staining(name, "recognized" if stain == "auto" else "set", change, doubt, seen.gray, notes)


def _doubt(name: Stain, seen: Recognition, hdab: HdabStains | None) -> str:
    """Why the image may not have the stain that is set; empty where nothing speaks against it."""
    if name == seen.stain:
        return "it is gray" if seen.gray and name == "he" else ""
    if hdab is None or seen.stain == "fluorescence":
        return f"it looks like {STAIN_TITLES[seen.stain]}"
    if not hdab.has_dab:
        return "it has no DAB"
    if seen.gray:
        return "it is gray"
    return "it looks like H&E" if seen.pink >= LEAST_PINK else ""


def find_stain(source: Slide, model: Model, *, warn: bool = True) -> StainMap | None:
    """What to do to every pixel of an image; None when the model asks for nothing or the image is unfit.

    Reads a regular sample of the image's rows. An unfit image is named in the log, unless `warn` is False.
    Raises HemalumError for an unfit image where the model's card says `unfit: refuse`.
    """
    if model.card.stain is None:
        return None
    normalizer = StainNormalizer(model.card.stain)
    change = normalizer.match(sample_pixels(source.rows, source.shape), source.name)
    if warn:
        normalizer.warn()
    return change
