"""Which label file belongs to which image: by name, as a person reads it.

A file belongs to the image of its name, without the ending and without what a program added:

    a.png   a.ome.tif   a.npy   a_cp_masks.png   a-labels.tif   mask_a.png   Mask of a.tif   a.tif_mask.png …

Names that only a computer tells apart are the same: Unicode form, case, spaces and joints. The nearer name comes
first, and a name that fits two images as well belongs to neither.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import unquote

from hemalum.data.image import IMAGE_SUFFIXES
from hemalum.data.label_formats import LABEL_ENDINGS, LABEL_FORMATS, PICKLE, is_common, is_drawn, label_ending
from hemalum.errors import HemalumError

_JOINT = r"[ _.\-]"
_WORDS = (
    "cp[ _-]masks|masks?|labels?|labelled|labeled|label[ _-]?(?:map|image)|lbl|instances?|inst|inst[ _-]?map|"
    "instance[ _-]?map|seg|segs|segmentation|segmented|gt|ground[ _-]?truth|truth|annotations?|annotated|anno|"
    "pred|prediction|nuclei|objects|object[ _-]identities|simple[ _-]segmentation|bin|binary"
)
_CLASS_WORDS = "class|classes|types?|class[ _-]?map|type[ _-]?map"
_TAIL = re.compile(rf"(?<=.){_JOINT}\(?(?:{_WORDS})\)?$", re.IGNORECASE)
_CLASS_TAIL = re.compile(rf"(?<=.){_JOINT}\(?(?:{_CLASS_WORDS})\)?$", re.IGNORECASE)
_HEAD = re.compile(rf"^(?:(?:count )?masks? of |(?:{_WORDS}){_JOINT})(?=.)", re.IGNORECASE)
_IMAGE_TAIL = re.compile(rf"(?<=.){_JOINT}(?:image|img|raw|orig|original|tissue|h&?e)$", re.IGNORECASE)
# what programs write beside labels: flows and outlines of Cellpose, overlays, probabilities
_BY_PRODUCT = re.compile(
    rf"(?<=.){_JOINT}(?:cp[ _-])?(?:flows?|outlines?|overlay|output|dp|cellprob|prob|probabilit(?:y|ies))"
    rf"(?:{_JOINT}cp[ _-]masks)?$",
    re.IGNORECASE,
)
_INNER = re.compile(r"(?<=.)\.(?:ome\.tiff?|tiff?|btf|png|jpe?g|bmp|svs|ndpi|ome)$", re.IGNORECASE)


def label_stem(name: str) -> str | None:
    """A file's name without its ending; None for a file that holds no labels."""
    ending = label_ending(name)
    return None if ending is None else name[: -len(ending)]


def stem_of(path: Path) -> str:
    """The name of an image or label file without its ending."""
    stem = label_stem(path.name)
    return path.stem if stem is None else stem


def without_tail(stem: str) -> str:
    """A file's name without ending, without the tail that a program added."""
    return _TAIL.sub("", stem)


def list_label_files(folder: Path) -> list[Path]:
    """The label files of a folder by name; may be empty. Raises HemalumError where the folder cannot be read."""
    return [path for path in _list_files(folder) if label_ending(path.name) is not None]


def list_class_files(folder: Path) -> list[Path]:
    """The class maps of a folder by name. Raises HemalumError where it cannot be read."""
    return [path for path in list_label_files(folder) if LABEL_FORMATS[label_ending(path.name) or ""].classes]


def list_images(folder: Path) -> list[Path]:
    """The images of a folder by name. Raises HemalumError where it cannot be read."""
    return [path for path in _list_files(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def is_label_word(name: str) -> bool:
    """Whether a folder's name says that labels are in it: masks, GT, annotations …"""
    return _TAIL.search(f"x_{name}") is not None


def same_stem(folder: Path, image: Path) -> str:
    """The end of an error line: the file of an image's name that is of no format of labels; empty without one."""
    stem = _key(stem_of(image))
    others = [path.name for path in _list_files(folder) if path != image and _key(path.stem) == stem]
    return f"; {others[0]} is of no format that is read ({', '.join(LABEL_ENDINGS)})" if others else ""


@dataclass(frozen=True, eq=False)
class JoinedLabels:
    """Label files by image, the one to read first.

    `unmatched` belong to no image, `ambiguous` fit several images as well, and of the files of an image in `equal`
    none comes first. `by_products` are what programs write beside labels.
    """

    by_image: dict[str, list[Path]]
    unmatched: list[Path]
    ambiguous: dict[Path, list[str]]
    equal: frozenset[str]
    by_products: list[Path]

    def file_of(self, name: str) -> Path | None:
        """The file of an image, if there is one. Raises HemalumError where two fit equally well."""
        if name in self.equal:
            first, second = self.by_image[name][:2]
            raise HemalumError(f"{second}: a second label map for image {name}, beside {first.name}; keep one")
        return self.by_image[name][0] if name in self.by_image else None

    @property
    def passed_over(self) -> list[Path]:
        """Files that belong to an image and are not read, since another one comes first or they are no labels."""
        later = (path for files in self.by_image.values() for path in files[1:] if not is_common(path))
        return [*later, *self.by_products]


def join_labels(files: Iterable[Path], names: Iterable[str], *, classes: bool = False) -> JoinedLabels:
    """Join label files (or, with `classes`, class maps) with images by the images' names without ending.

    Of several files for one image a name with a tail comes first, then outlines, then a bare name, which beside them
    is likely the photograph.
    """
    levels = _levels(names)
    ranked: dict[str, list[tuple[int, int, Path]]] = defaultdict(list)
    unmatched: list[Path] = []
    by_products: list[Path] = []
    ambiguous: dict[Path, list[str]] = {}
    for path in files:
        level, images = _find(_forms(stem_of(path), classes=classes), levels)
        if len(images) == 1:
            ranked[images[0]].append((_rank(path, images[0]), level, path))
        elif is_common(path):
            continue
        elif images:
            ambiguous[path] = images
        elif _find(_forms(_BY_PRODUCT.sub("", stem_of(path))), levels)[1]:
            by_products.append(path)
        else:
            unmatched.append(path)
    for entries in ranked.values():
        entries.sort()
    equal = (name for name, entries in ranked.items() if len(entries) > 1 and entries[0][:2] == entries[1][:2])
    by_image = {name: [path for _, _, path in entries] for name, entries in ranked.items()}
    return JoinedLabels(by_image, unmatched, ambiguous, frozenset(equal), by_products)


def apart(folder: Path) -> tuple[list[Path], list[Path]]:
    """The images and the label files of a folder that holds both: labels are those named after an image.

    Raises HemalumError where it cannot be read.
    """
    images, labels = list_images(folder), list_label_files(folder)
    names = {_key(form) for path in images for form in (stem_of(path), _image_name(path.stem))}
    named_after = {path for path in labels if any(_key(form) in names for form in _shorter(stem_of(path)))}
    pictures = [path for path in images if path not in named_after]
    return pictures, [path for path in labels if path not in pictures]


def near_name(path: Path, others: Iterable[Path]) -> str:
    """The end of an error line: the file whose name nearly fits, and the way out; empty where there is none."""
    known = {_key(_shortest(stem_of(other))): other.name for other in others}
    match = get_close_matches(_key(_shortest(stem_of(path))), known, n=1, cutoff=0.75)
    return f"; {known[match[0]]} nearly fits: rename one of them, or join them in index.csv" if match else ""


def _forms(stem: str, *, classes: bool = False) -> list[str]:
    """The names that a label file's name may stand for, the nearest first: itself, then with ever more taken off."""
    forms = [stem]
    while True:
        for pattern in (_INNER, _CLASS_TAIL if classes else _TAIL, _TAIL, _HEAD):
            shorter = pattern.sub("", forms[-1])
            if shorter != forms[-1]:
                forms.append(shorter)
                break
        else:
            return forms


def _list_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise HemalumError(f"{folder}: folder cannot be read ({error.strerror or error})") from error


def _shorter(stem: str) -> list[str]:
    """What is left of a label file's name, or of a by-product's, without what was added."""
    source = _BY_PRODUCT.sub("", stem)
    return _forms(stem)[1:] if source == stem else _forms(source)


def _shortest(stem: str) -> str:
    return _forms(stem)[-1]


def _image_name(stem: str) -> str:
    """An image's name without what tells it from its labels: `a_img` and `a.ome` are `a`."""
    return _IMAGE_TAIL.sub("", _INNER.sub("", stem))


def _key(name: str) -> str:
    """The same for names that a person cannot tell apart."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _loose_key(name: str) -> str:
    """The same for names with other joints: `case 1`, `case_1`, `Case-1`, `case%201`."""
    return re.sub(r"[\W_]+", "_", _key(unquote(name))).strip("_")


_Level = tuple[Callable[[str], str], dict[str, list[str]]]


def _levels(names: Iterable[str]) -> list[_Level]:
    """The images by ever looser keys of their names."""
    names = list(dict.fromkeys(names))
    levels: list[_Level] = []
    for key in (str, _key, _loose_key):
        for form in (str, _image_name, _shortest):
            images: dict[str, list[str]] = defaultdict(list)
            for name in names:
                images[key(form(name))].append(name)
            levels.append((key, images))
    return levels


def _find(forms: Sequence[str], levels: Sequence[_Level]) -> tuple[int, list[str]]:
    """The first level at which a form of a name is that of images, and those images."""
    for number, (key, images) in enumerate(levels):
        for form in forms:
            if key(form) in images:
                return number, images[key(form)]
    return len(levels), []


def _rank(path: Path, name: str) -> int:
    if path.name.lower().endswith(PICKLE):
        return 3
    if is_common(path):
        return 4
    if is_drawn(path):
        return 1
    return 2 if _key(stem_of(path)) == _key(name) else 0
