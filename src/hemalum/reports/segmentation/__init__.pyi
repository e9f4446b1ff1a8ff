from .batch import Batch as Batch
from .batch import collect as collect
from .page import SCALE_TEXTS as SCALE_TEXTS
from .page import SummaryPage as SummaryPage
from .page import density_text as density_text
from .page import score_texts as score_texts
from .page import stain_text as stain_text
from .page import thresholds_text as thresholds_text
