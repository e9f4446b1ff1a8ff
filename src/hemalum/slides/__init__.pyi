from .image_source import ImageSource as ImageSource
from .readers.opening import is_slide as is_slide
from .readers.reader import BrokenTile as BrokenTile
from .resample import Resampler as Resampler
from .slide import Level as Level
from .slide import Slide as Slide
from .slide import check_slide_mpp as check_slide_mpp
from .slide import open_slide as open_slide
