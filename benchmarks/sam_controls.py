"""What a trained model does with another embedding: how many pixels change, and its Dice.

    python benchmarks/sam_controls.py DATASET MODEL … [--part test] [--images N] [-o FILE]

The model itself stays as it is. The middle window of each image is given its own embedding, that of the next image,
all zeros, and random numbers with the mean and deviation of each channel over all images. `changed` is the share of
pixels that are nucleus with one and background with the other. A model that hardly changes with another image's
embedding does not use what SAM sees. That it changes does not say that SAM helps: for that the recipe's variants
`…_shuffled`, `…_zeroed` and `…_random` are trained.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hemalum.data.dataset import Dataset
from hemalum.data.stain.normalization import StainNormalizer
from hemalum.errors import HemalumError
from hemalum.models.map_model import MapModel, build_map_model
from hemalum.models.model import load_model
from hemalum.training.encoding import normalize_images, prepare_sample
from record import figures_parser, write_record

THRESHOLD = 0.5


def middle_windows(dataset: Dataset, mpp: float, window: int, stain: Any) -> tuple[Tensor, Tensor]:
    """The middle of each image (N, 3, window, window) in [0, 1], and where nuclei are (N, window, window) bool."""
    images, truths = [], []
    normalizer = None if stain is None else StainNormalizer(stain)
    for index in range(len(dataset)):
        sample = prepare_sample(dataset[index], mpp, normalizer)
        height, width = sample.image.shape[:2]
        rows = ((np.arange(height) + 0.5) * sample.labels.shape[0] / height).astype(int)
        columns = ((np.arange(width) + 0.5) * sample.labels.shape[1] / width).astype(int)
        nuclei = sample.labels[np.ix_(rows, columns)] > 0
        missing = [(0, max(0, window - length)) for length in (height, width)]
        image, nuclei = np.pad(sample.image, [*missing, (0, 0)], "symmetric"), np.pad(nuclei, missing, "symmetric")
        top, left = ((length - window) // 2 for length in nuclei.shape)
        images.append(torch.from_numpy(image[top : top + window, left : left + window].copy()).permute(2, 0, 1))
        truths.append(torch.from_numpy(nuclei[top : top + window, left : left + window].copy()))
    return torch.stack(images).float() / 255, torch.stack(truths)


def embeddings_of(model: MapModel, images: Tensor) -> dict[str, Tensor]:
    """The embedding of each image, and what is given in its place."""
    if model.sam is None:
        raise HemalumError("the model takes no embedding")
    plain = torch.cat([model.sam(image[None]) for image in images])
    mean, deviation = plain.mean((0, 2, 3), keepdim=True), plain.std((0, 2, 3), keepdim=True)
    noise = torch.randn(plain.shape, generator=torch.Generator().manual_seed(0))
    return {
        "of the image": plain,
        "another image's": plain.roll(1, 0),
        "zeros": torch.zeros_like(plain),
        "random numbers": mean + deviation * noise,
    }


def predict(model: MapModel, images: Tensor, embeddings: Tensor) -> Tensor:
    """Where the model sees nuclei (N, H, W) bool."""
    seen = [
        model.network(normalize_images(image[None]), embedding=embedding[None])[:, 0].sigmoid() >= THRESHOLD
        for image, embedding in zip(images, embeddings, strict=True)
    ]
    return torch.cat(seen)


def mean_dice(seen: Tensor, truths: Tensor) -> float:
    both = (seen & truths).sum((1, 2)).double()
    total = seen.sum((1, 2)) + truths.sum((1, 2))
    return float(torch.where(total > 0, 2 * both / total.clamp_min(1), torch.ones_like(both)).mean())


@torch.inference_mode()
def probe(dataset: Dataset, path: Path) -> dict[str, dict[str, float]]:
    """By what is given: the share of pixels that change, and the mean Dice of the foreground over images."""
    model = load_model(path)
    card = model.card
    if card.sam is None or card.window is None:
        raise HemalumError(f"{path}: the model takes no embedding of SAM")
    maps = build_map_model(card, model.tensors)
    images, truths = middle_windows(dataset, card.mpp, card.window, card.stain)
    rows, plain = {}, torch.empty(0)
    for name, embeddings in embeddings_of(maps, images).items():
        seen = predict(maps, images, embeddings)
        plain = seen if name == "of the image" else plain
        rows[name] = {"changed": float((seen != plain).double().mean()), "dice": mean_dice(seen, truths)}
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = figures_parser(__doc__, Path("sam_controls.json"))
    parser.add_argument("dataset", type=Path)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL")
    parser.add_argument("--part", choices=["train", "val", "test"], default="test")
    parser.add_argument("--images", type=int, help="the first N alone")
    options = parser.parse_args(arguments)
    full = Dataset.open(options.dataset)
    dataset = full.split(options.part)
    if options.images:
        dataset = Dataset(dataset.path, dataset.info, dataset.rows[: options.images])
    results = {}
    print("| model | embedding | pixels changed (%) | Dice |\n|---|---|---|---|")
    for path in options.models:
        results[str(path)] = probe(dataset, path)
        for name, row in results[str(path)].items():
            print(f"| {path.parent.name or path.name} | {name} | {100 * row['changed']:.2f} | {row['dice']:.3f} |")
    data = {"name": full.info.name, "split_sha256": full.split_hash, "part": options.part, "images": len(dataset)}
    write_record(options.output, "sam_controls", ["torch", "transformers"], results, data=data)


if __name__ == "__main__":
    main()
