"""The slide of a store: beside it, where it was when it was segmented, or where it is said to be."""

from pathlib import Path

from builders.reviews import save_slide
from hemalum.inference import find_slide, slide_of
from hemalum.inference.summary import Finished, Summary
from hemalum.nuclei.store import open_store


def test_a_slide_is_found_where_it_was_segmented(tmp_path: Path) -> None:
    out = save_slide(tmp_path / "out" / "more")
    slide = (out / "a.png").rename(tmp_path / "a.png")
    store = open_store(out / "a.nuclei")
    assert find_slide(store) is None
    record = Summary(tmp_path / "out")
    record.add(Finished.now("more/a", slide, settings={}, files={}, row={"image": "a"}))
    assert find_slide(store) == slide
    with slide_of(store) as opened:
        assert opened.shape == store.run.shape
    copied = out / "a.png"
    copied.write_bytes(slide.read_bytes())
    assert find_slide(store) == copied  # that comes first
    copied.unlink()
    slide.unlink()
    assert find_slide(store) is None
