from .image_source import ImageSource as ImageSource
