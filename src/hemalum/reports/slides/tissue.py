"""Where in the slide of a store there is tissue."""

import logging

from hemalum.nuclei.store import NucleiStore
from hemalum.slides import Slide, Tissue, all_tissue, find_artifacts, find_tissue

log = logging.getLogger(__name__)


def tissue_of(store: NucleiStore, slide: Slide) -> tuple[Tissue, str]:
    """Where nuclei were looked for in a slide, and what speaks against that, in words; "" where nothing does."""
    digest, mpp = store.run.settings.get("tissue_mask"), store.run.mpp
    seen = all_tissue(slide, "no mask was used", mpp=mpp) if digest is None else find_tissue(slide, mpp=mpp)
    left_out = store.run.settings.get("artifacts")  # None where there are none: then they need not be looked for
    tissue = seen if left_out in (None, "kept") else find_artifacts(slide, mpp=mpp).without(seen)
    if digest is None or tissue.digest == digest:
        return tissue, ""
    doubt = "the tissue mask that this version finds is not the one of the run"
    log.warning("%s: %s", store.path, doubt)
    return tissue, doubt
