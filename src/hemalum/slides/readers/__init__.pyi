from .opening import is_slide as is_slide
from .opening import open_reader as open_reader
from .reader import BrokenTile as BrokenTile
from .reader import Reader as Reader
