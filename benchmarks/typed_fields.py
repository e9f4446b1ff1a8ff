"""Fields of held-out CoNSeP images with the class of each nucleus, as annotated and as the model `typed` has it.

    python benchmarks/typed_fields.py data/consep [--model typed] [-o docs/images/models_typed.jpg] [--json FILE]

The fields are those of benchmarks/fields.py: six, by a rule, from the five test images. In each: how many of the
matched nuclei (IoU above 0.5) have the class that is annotated; --json has the same of the whole images, as a table
of annotated by given class.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fields import CITED, DOCS, choose_fields, count, outline, save, say
from hemalum.data.dataset import Dataset
from hemalum.export.colours import Classes
from hemalum.inference.model import load_model
from hemalum.inference.segment import segment
from hemalum.metrics import measure_overlap
from hemalum.report.contact_sheet import Cell, Row, Sheet
from record import write_record

CONSEP = next(part for part in CITED.removeprefix("Images: ").rstrip(".").split("; ") if part.startswith("CoNSeP"))


def matched_classes(
    truth: NDArray[np.int32], prediction: NDArray[np.int32], annotated: Classes, given: Classes
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The annotated and the given class of each pair of nuclei that match."""
    overlap = measure_overlap(truth, prediction)
    matched = overlap.intersection > 0.5 * overlap.union
    return (
        annotated.numbers[overlap.truth_ids[overlap.pair_truth[matched]] - 1],
        given.numbers[overlap.prediction_ids[overlap.pair_prediction[matched]] - 1],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        labels, found = nuclei.label_map(), nuclei.classes
        if found is None or sample.classes is None:
            raise SystemExit(f"error: {arguments.model} or {arguments.dataset} knows no classes of nuclei")
        truth = Classes(np.array([number_of.get(int(id), 0) for id in sample.classes[1:]], np.int32), names)
        np.add.at(table, matched_classes(sample.instances, labels.astype(np.int32), truth, found), 1)
        for one in fields:
            inside = labels[one.window].astype(np.int32)
            annotated, given = matched_classes(one.truth, inside, truth, found)
            note = f"class right: {(annotated == given).sum()} of {len(given)}"
            cells = [
                Cell(outline(one.image, None, DOCS), bar=(10 / one.mpp * DOCS / one.image.shape[0], "10 µm")),
                Cell(outline(one.image, one.truth, DOCS, classes=truth), note=say(count(one.truth))),
                Cell(outline(one.image, inside, DOCS, classes=found), note=note),
            ]
            print(one.name, note, flush=True)
            rows.append(Row(one.lines, cells))
    sheet = Sheet(
        title="typed: classes of nuclei of colon",
        subtitle="held-out images, fields of 64 µm; nothing chosen by hand",
        columns=[("image", ""), ("annotation", ""), (arguments.model, "")],
        rows=rows,
        legend=list(zip(legend.colours, names, strict=True)),
        footnotes=[f"Images: {CONSEP}."],
    )
    save(arguments.output, sheet, 300_000)
    by_class = {
        name: {other: int(table[number, place]) for place, other in enumerate(names, 1)}
        for number, name in enumerate(names, 1)
    }
    for name, row in by_class.items():
        print(f"annotated {name}: {row}")
    write_record(arguments.json, "typed_fields", ["numpy"], {"matched": by_class}, model=arguments.model)


if __name__ == "__main__":
    main()
