"""hemalum: nucleus segmentation for histopathology."""

__version__ = "0.1.0"
