from .contact_sheet import Panel as Panel
from .contact_sheet import Row as Row
from .contact_sheet import Sheet as Sheet
from .contact_sheet import draw_sheet as draw_sheet
from .difference import write_difference as write_difference
from .embedding import write_embedding_picture as write_embedding_picture
from .preview import choose_samples as choose_samples
from .preview import write_preview as write_preview
from .uncertainty import write_uncertainty as write_uncertainty

__all__ = [
    "Panel",
    "Row",
    "Sheet",
    "choose_samples",
    "draw_sheet",
    "write_difference",
    "write_embedding_picture",
    "write_preview",
    "write_uncertainty",
]
