"""Fields of held-out CoNSeP images with the class of each nucleus, as annotated and as the model `typed` has it.

    python benchmarks/typed_fields.py data/consep [--model typed] [-o docs/images/models_typed.jpg] [--json FILE]

The fields are those of benchmarks/fields.py: six, by a rule, from the five test images. In each: how many of the
matched nuclei (IoU above 0.5) have the class that is annotated; --json has the same of the whole images, as a table
of annotated by predicted class.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fields import CITED, DOCS, choose_fields, count_nuclei, draw_square, nuclei_text, save_sheet
from hemalum.data.dataset import Dataset
from hemalum.inference.segment import segment
from hemalum.metrics import measure_overlap
from hemalum.models.model import load_model
from hemalum.nuclei.io.colors import Classes
from hemalum.reports.figures.contact_sheet import Panel, Row, Sheet
from record import argument_parser, write_record

CONSEP = next(part for part in CITED.removeprefix("Images: ").rstrip(".").split("; ") if part.startswith("CoNSeP"))


def matched_classes(
    truth: NDArray[np.int32], prediction: NDArray[np.int32], annotated: Classes, predicted: Classes
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The annotated and the predicted class of each pair of nuclei that match."""
    overlap = measure_overlap(truth, prediction)
    matched = overlap.intersection > 0.5 * overlap.union
    return (
        annotated.numbers[overlap.truth_ids[overlap.pair_truth[matched]] - 1],
        predicted.numbers[overlap.prediction_ids[overlap.pair_prediction[matched]] - 1],
    )


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--model", default="typed")
    parser.add_argument("-o", "--output", type=Path, default=Path("models_typed.jpg"))
    parser.add_argument("--json", type=Path, default=Path("typed_fields.json"))
    arguments = parser.parse_args()
    model, dataset = load_model(arguments.model), Dataset.open(arguments.dataset)
    names = model.card.classes
    number_of = {id: names.index(name) + 1 for id, name in (dataset.info.classes or {}).items()}
    rows, legend = [], Classes(np.zeros(0, np.int32), names)
    table = np.zeros((len(names) + 1, len(names) + 1), int)
    for sample, fields in choose_fields(dataset):
        nuclei = segment(sample.image, model, mpp=sample.mpp)
        labels, predicted_classes = nuclei.label_map(), nuclei.classes
        if predicted_classes is None or sample.classes is None:
            raise SystemExit(f"error: {arguments.model} or {arguments.dataset} knows no classes of nuclei")
        truth = Classes(np.array([number_of.get(int(id), 0) for id in sample.classes[1:]], np.int32), names)
        np.add.at(table, matched_classes(sample.instances, labels.astype(np.int32), truth, predicted_classes), 1)
        for square in fields:
            inside = labels[square.window].astype(np.int32)
            annotated, predicted = matched_classes(square.truth, inside, truth, predicted_classes)
            note = f"class right: {(annotated == predicted).sum()} of {len(predicted)}"
            panels = [
                Panel(
                    draw_square(square.image, None, DOCS),
                    bar=(10 / square.mpp * DOCS / square.image.shape[0], "10 µm"),
                ),
                Panel(
                    draw_square(square.image, square.truth, DOCS, classes=truth),
                    note=nuclei_text(count_nuclei(square.truth)),
                ),
                Panel(draw_square(square.image, inside, DOCS, classes=predicted_classes), note=note),
            ]
            print(square.name, note, flush=True)
            rows.append(Row(square.lines, panels))
    sheet = Sheet(
        title="typed: classes of nuclei of colon",
        subtitle="held-out images, fields of 64 µm; nothing chosen by hand",
        columns=[("image", ""), ("annotation", ""), (arguments.model, "")],
        rows=rows,
        legend=list(zip(legend.colors, names, strict=True)),
        footnotes=[f"Images: {CONSEP}."],
    )
    save_sheet(arguments.output, sheet, 300_000)
    by_class = {
        name: {predicted: int(table[number, column]) for column, predicted in enumerate(names, 1)}
        for number, name in enumerate(names, 1)
    }
    for name, row in by_class.items():
        print(f"annotated {name}: {row}")
    write_record(arguments.json, "typed_fields", ["numpy"], {"matched": by_class}, model=arguments.model)


if __name__ == "__main__":
    main()
