from .image_source import ImageSource as ImageSource

__all__ = [
    "ImageSource",
]
