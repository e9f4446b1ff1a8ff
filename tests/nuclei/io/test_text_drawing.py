"""Text for pictures loses no sign where Pillow's own type is all there is."""

from hemalum.nuclei.io.text_drawing import TextDrawing


def test_signs_that_the_plain_type_lacks_are_written_in_others() -> None:
    pen = TextDrawing()
    pen.path = None
    assert pen.spell("Cells of 50.4 × 49.4 µm, 5–9 per mm², é → …") == "Cells of 50.4 x 49.4 um, 5-9 per mm2, e -> .."
