from .image import ImageReader as ImageReader
from .opening import is_slide as is_slide
from .opening import open_reader as open_reader
from .reader import BrokenTile as BrokenTile
from .reader import BrokenTiles as BrokenTiles
from .reader import Pixels as Pixels
from .reader import Reader as Reader
from .scale_tags import file_mpp as file_mpp
