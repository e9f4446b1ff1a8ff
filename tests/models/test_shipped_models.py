"""The models in the package, on the image of the demonstration."""

import pytest
from skimage.data import immunohistochemistry

import hemalum
from hemalum.models.engines import openvino as engine_openvino
from hemalum.models.engines.engine import make_engine
from hemalum.models.model import load_model, shipped_models

CLASSES = {"accurate": ["nucleus"], "fast": ["nucleus"], "typed": ["other", "inflammatory", "epithelial", "spindle"]}


def test_all_are_there() -> None:
    assert shipped_models().keys() == CLASSES.keys()


@pytest.mark.parametrize("name", CLASSES)
def test_each_finds_nuclei_and_knows_its_classes(name: str) -> None:
    card = load_model(name).card
    assert (card.name, card.classes) == (name, CLASSES[name])
    nuclei = hemalum.segment(immunohistochemistry()[:256, 256:], name, mpp=0.45, stain="hdab")
    assert 60 < nuclei.count < 160  # some 100 by eye
    assert ("class" in nuclei.table.column_names) == (len(card.classes) > 1)
    if nuclei.classes is not None:
        assert sum(nuclei.classes.counts.values()) == nuclei.count


@pytest.mark.parametrize("name", ["accurate", "fast"])
def test_int8_is_the_default_where_the_processor_can(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_openvino, "has_int8", lambda: True)
    assert make_engine("openvino", load_model(name)).precision == "int8"
