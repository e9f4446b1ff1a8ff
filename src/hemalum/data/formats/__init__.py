"""The formats that `import` reads: one file per public dataset or layout, and this table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hemalum.data.formats import (
    conic,
    consep,
    cryonuseg,
    dsb2018,
    folder,
    ihc_pairs,
    kumar,
    lizard,
    monuseg,
    nuinsseg,
    pannuke,
    polyps,
    tnbc,
)
from hemalum.data.published import one_fold_tests
from hemalum.data.sample import Sample
from hemalum.data.splits import Member, Part


@dataclass(frozen=True)
class Reader:
    """A format: `read(path, **options)` yields Samples; the rest describes the published data.

    `mpp` is the scale of every image, None where the set states none; `mpp_source` is "published", or
    "nuclei" where we measured it on the labels (then `mpp_note` says how). `group` is what a split keeps
    together: "mosaic", or a word for what the reader puts in Sample.group. `licence` is an SPDX id, or says
    in words what is allowed.

    `size` is images, pixels and nuclei as published. `classes` names the class ids (0 is never in it);
    `classes_for(**options)` gives them where they depend on the reader's options. `markers` are glob patterns
    relative to the folder that give the layout away: one that matches says "this looks like me".

    A published split is in `published(members, fold)`, which gives each id its part (fold runs from 1 to
    `folds`, and is 0 where there are none), or in the samples' own `part`; `published_rule` says it in words;
    with `published_unasked=False` it is taken only where it is asked for.
    """

    title: str
    read: Callable[..., Iterator[Sample]]
    group: str
    licence: str = ""
    citation: str = ""
    url: str = ""
    mpp: float | None = None
    mpp_source: str = "published"
    mpp_note: str = ""
    size: str = ""
    classes: Mapping[int, str] = field(default_factory=dict)
    classes_for: Callable[..., Mapping[int, str]] | None = None
    markers: tuple[str, ...] = ()
    published: Callable[[Sequence[Member], int], Mapping[str, Part]] | None = None
    published_rule: str = ""
    folds: int = 0
    published_unasked: bool = True


READERS: dict[str, Reader] = {
    "folder": Reader(
        title="Your own folder: images with label maps or binary masks",
        read=folder.read,
        group="image, or the column named group",
        classes_for=folder.classes_for,
        markers=("labels/*.png", "labels/*.tif", "labels/*.tiff"),
    ),
    "dsb2018": Reader(
        title="2018 Data Science Bowl, stage 1 training set",
        read=dsb2018.read,
        group="mosaic",
        licence="CC0-1.0",
        citation="Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data Science "
        "Bowl, Nature Methods 16, 1247-1253 (2019), doi:10.1038/s41592-019-0612-7",
        url="https://bbbc.broadinstitute.org/BBBC038",
        size="670 images of 256 x 256 to 1040 x 1388 px, 29,461 nuclei",
        markers=("stage1_train/*/masks", "[0-9a-f][0-9a-f][0-9a-f][0-9a-f]*/masks/*.png"),
    ),
    "tnbc": Reader(
        title="TNBC, triple-negative breast cancer, H&E",
        read=tnbc.read,
        group="patient",
        licence="CC-BY-4.0",
        citation="Naylor et al., Segmentation of nuclei in histopathology images by deep regression of "
        "the distance map, IEEE Trans. Med. Imaging 38, 448-459 (2019), doi:10.1109/TMI.2018.2865709",
        url="https://doi.org/10.5281/zenodo.1175282",
        size="50 images of 512 x 512 px, 4,022 nuclei",
        mpp=0.25,
        mpp_note="40x, as the field takes it",
        markers=("GT_[0-9]*", "*/GT_[0-9]*"),
        published=tnbc.published,
        published_rule="leave one patient out: fold N tests on patient N",
        folds=11,
        published_unasked=False,  # eleven runs make one result; one alone tests on 3 to 8 images
    ),
    "nuinsseg": Reader(
        title="NuInsSeg, H&E of human and mouse organs",
        read=nuinsseg.read,
        group="organ",
        licence="CC-BY-4.0",
        citation="Mahbod et al., NuInsSeg: a fully annotated dataset for nuclei instance segmentation in "
        "H&E-stained histological images, Scientific Data 11, 295 (2024), doi:10.1038/s41597-024-03117-2",
        url="https://doi.org/10.5281/zenodo.10518968",
        size="665 images of 512 x 512 px, 30,698 nuclei",
        mpp=0.16,
        mpp_source="nuclei",
        mpp_note="measured: median nucleus of the human part (33.5 px) against TNBC (20.9 px at 0.25 µm/px); "
        "commonly given as 0.2 to 0.25",
        markers=("human */tissue images", "mouse */tissue images", "*/human */tissue images"),
        published=nuinsseg.published,
        published_rule="KFold(5, shuffle=True, random_state=19) over the sorted images: fold N tests",
        folds=nuinsseg.FOLDS,
        published_unasked=False,  # by tile: tiles of one slide are on both sides
    ),
    "lizard": Reader(
        title="Lizard, H&E of the colon",
        read=lizard.read,
        group="image",
        licence="CC-BY-NC-SA-4.0",
        citation="Graham et al., Lizard: a large-scale dataset for colonic nuclear instance segmentation and "
        "classification, ICCV Workshops, 684-693 (2021), doi:10.1109/ICCVW54120.2021.00082",
        url="https://warwick.ac.uk/lizard-dataset",
        mpp=0.5,
        mpp_note="20x, as published",
        size="238 images of 1016 x 917 px on average, 431,913 nuclei",
        classes=lizard.CLASSES,
        markers=("[Ll]izard_[Ll]abels/Labels", "[Ll]izard_[Ll]abels/Lizard_Labels"),
        published=one_fold_tests,
        published_rule="the three folds of info.csv by image: the fold tests, the other two train",
        folds=3,
    ),
    "conic": Reader(
        title="CoNIC challenge, patches of Lizard",
        read=conic.read,
        group="source image",
        licence="CC-BY-NC-SA-4.0",
        citation="Graham et al., CoNIC challenge: pushing the frontiers of nuclear detection, segmentation, "
        "classification and counting, Medical Image Analysis 92, 103047 (2024), doi:10.1016/j.media.2023.103047",
        url="https://conic-challenge.grand-challenge.org/Data/",
        mpp=0.5,
        mpp_note="20x, as published",
        size="4,981 patches of 256 x 256 px",
        classes=lizard.CLASSES,
        markers=("patch_info.csv", "data/patch_info.csv"),
        published=conic.published,
        published_rule="3842/499/640 patches, the counts of the two-stage enhancement paper, which does not say "
        "which they are: here whole source images, as near to the counts as those allow",
    ),
    "pannuke": Reader(
        title="PanNuke, H&E of 19 organs",
        read=pannuke.read,
        group="fold",
        licence="CC-BY-NC-SA-4.0",
        citation="Gamper et al., PanNuke: an open pan-cancer histology dataset for nuclei instance segmentation and "
        "classification, ECDP, 11-19 (2019), doi:10.1007/978-3-030-23937-4_2",
        url="https://warwick.ac.uk/fac/cross_fac/tia/data/pannuke",
        mpp=0.25,
        mpp_note="40x, as published",
        size="7,901 tiles of 256 x 256 px, 189,744 nuclei",
        classes=pannuke.CLASSES,
        markers=(
            "Fold*/images/fold*/images.npy",
            "fold*/images/fold*/images.npy",
            "fold*/Fold*/images/fold*/images.npy",
            "images/fold*/images.npy",
            "images/[012]_*.png",
            "fold[012]/images/[012]_*.png",
        ),
        published=pannuke.published,
        published_rule="three folds: 1 trains, 2 validates, 3 tests; or 2, 1, 3; or 3, 2, 1",
        folds=3,
    ),
    "consep": Reader(
        title="CoNSeP, H&E of colorectal tumours",
        read=consep.read,
        group="image",
        licence="research use (no licence stated)",
        citation="Graham et al., HoVer-Net: simultaneous segmentation and classification of nuclei in multi-tissue "
        "histology images, Medical Image Analysis 58, 101563 (2019), doi:10.1016/j.media.2019.101563",
        url="https://warwick.ac.uk/fac/cross_fac/tia/data/hovernet/",
        mpp=0.25,
        mpp_note="40x, as published",
        size="41 images of 1000 x 1000 px, 24,319 nuclei",
        classes=consep.CLASSES,
        classes_for=consep.classes_for,
        markers=("Train/Labels/train_*.mat", "Test/Labels/test_*.mat", "CoNSeP/Train/Labels"),
        published_rule="Train and Test, 27 and 14 images",
    ),
    "kumar": Reader(
        title="Kumar, H&E of seven organs from TCGA",
        read=kumar.read,
        group="patient",
        licence="CC-BY-NC-SA-4.0",
        citation="Kumar et al., A dataset and a technique for generalized nuclear segmentation for computational "
        "pathology, IEEE Trans. Med. Imaging 36, 1550-1560 (2017), doi:10.1109/TMI.2017.2677499",
        url="https://monuseg.grand-challenge.org/Data/",
        mpp=0.25,
        mpp_note="40x, as published",
        size="30 images of 1000 x 1000 px, 21,623 nuclei",
        markers=("test_same/Labels", "test_diff/Labels", "[Kk]umar/test_same", "Tissue Images/TCGA-*.tif"),
        published_rule="16 images train; test_same and test_diff, 8 and 6 images, test",
    ),
    "monuseg": Reader(
        title="MoNuSeg 2018 challenge, H&E of several organs from TCGA",
        read=monuseg.read,
        group="patient",
        licence="CC-BY-NC-SA-4.0",
        citation="Kumar et al., A multi-organ nucleus segmentation challenge, IEEE Trans. Med. Imaging 39, 1380-1391 "
        "(2020), doi:10.1109/TMI.2019.2947628",
        url="https://monuseg.grand-challenge.org/Data/",
        mpp=0.25,
        mpp_note="40x, as published; where the XML says a scale near it, that",
        size="37 + 14 images of 1000 x 1000 px; 28,846 nuclei in the 30 + 14 of the challenge",
        markers=tuple("*/" * depth + "TCGA-*.xml" for depth in range(monuseg.DEPTH)),
        published_rule="the training archive trains, the test archive tests, 37 and 14 images",
    ),
    "cryonuseg": Reader(
        title="CryoNuSeg, H&E cryosections of 10 organs from TCGA",
        read=cryonuseg.read,
        group="image, each of another patient",
        licence="CC-BY-NC-SA-4.0",
        citation="Mahbod et al., CryoNuSeg: a dataset for nuclei instance segmentation of cryosectioned H&E-stained "
        "histological images, Computers in Biology and Medicine 132, 104349 (2021), "
        "doi:10.1016/j.compbiomed.2021.104349",
        url="https://www.kaggle.com/datasets/ipateam/segmentation-of-nuclei-in-cryosectioned-he-images",
        mpp=0.25,
        mpp_note="40x, as published",
        size="30 images of 512 x 512 px, 7,596 nuclei (annotator 1; again 8,044; annotator 2 8,251)",
        markers=("Annotator [12] (bio*", "*/Annotator [12] (bio*", "RoiSet.zip", "*/RoiSet.zip"),
    ),
    "etis": Reader(
        title="ETIS-LaribPolypDB, polyps in colonoscopy, binary",
        read=polyps.reader("etis"),
        group="image: its videos are not told apart",
        licence="research use (no licence stated)",
        citation="Silva et al., Toward embedded detection of polyps in WCE images for early diagnosis of colorectal "
        "cancer, Int. J. Computer Assisted Radiology and Surgery 9, 283-293 (2014), doi:10.1007/s11548-013-0926-3",
        url="https://polyp.grand-challenge.org/EtisLarib/",
        size="196 frames of 1225 x 966 px",
        markers=("ETIS-LaribPolypDB/*.tif", "*/ETIS-LaribPolypDB/*.tif", "ETIS-LaribPolypDB/images"),
    ),
    "colondb": Reader(
        title="CVC-ColonDB, polyps in colonoscopy, binary",
        read=polyps.reader("colondb"),
        group="image: its videos are not told apart",
        licence="research use (no licence stated)",
        citation="Bernal et al., Towards automatic polyp detection with a polyp appearance model, Pattern "
        "Recognition 45, 3166-3182 (2012), doi:10.1016/j.patcog.2012.03.002",
        url="https://mv.cvc.uab.es/projects/colon-qa/cvccolondb",
        size="300 frames of 15 videos (380 as repackaged), 574 x 500 px",
        markers=("p[0-9]*.tiff", "p[0-9]*.bmp", "*/p[0-9]*.tiff", "*/p[0-9]*.bmp", "CVC-ColonDB/images"),
    ),
    "clinicdb": Reader(
        title="CVC-ClinicDB, polyps in colonoscopy, binary",
        read=polyps.reader("clinicdb"),
        group="video where a metadata.csv says it, else image",
        licence="research use (no licence stated)",
        citation="Bernal et al., WM-DOVA maps for accurate polyp highlighting in colonoscopy, Computerized Medical "
        "Imaging and Graphics 43, 99-111 (2015), doi:10.1016/j.compmedimag.2015.02.007",
        url="https://polyp.grand-challenge.org/CVCClinicDB/",
        size="612 frames of 384 x 288 px",
        markers=("Original/[0-9]*", "*/Original/[0-9]*", "CVC-ClinicDB/images"),
    ),
    "kvasir": Reader(
        title="Kvasir-SEG, polyps in colonoscopy, binary",
        read=polyps.reader("kvasir"),
        group="image",
        licence="research and education (stated by its authors)",
        citation="Jha et al., Kvasir-SEG: a segmented polyp dataset, MultiMedia Modeling, 451-462 (2020), "
        "doi:10.1007/978-3-030-37734-2_37",
        url="https://datasets.simula.no/kvasir-seg/",
        size="1,000 frames of 332 x 487 to 1920 x 1072 px",
        markers=("kavsir_bboxes.json", "*/kavsir_bboxes.json", "images/cju*.jpg", "*/images/cju*.jpg"),
    ),
    "ihc-pairs": Reader(
        title="H&E sections with labels derived from IHC sections (UHS-MelHist-like); nuclei positive for the marker",
        read=ihc_pairs.read,
        group="patient, or the pair",
        licence="yours; the labels are derived by registration, not drawn",
        markers=("ihc/*.png", "ihc/*.tif", "ihc/*.jpg"),
    ),
}


def looks_like(path: Path) -> list[str]:
    """The formats whose markers are found in a folder, in the order of the table."""
    return [name for name, reader in READERS.items() if _has_marker(path, reader.markers)]


def _has_marker(path: Path, markers: Sequence[str]) -> bool:
    return path.is_dir() and any(next(path.glob(pattern), None) is not None for pattern in markers)
