from .aperio_xml import read_aperio_xml as read_aperio_xml
from .arrays import NpyRows as NpyRows
from .arrays import read_mat as read_mat
from .arrays import read_npy as read_npy
from .imagej_rois import read_roi_set as read_roi_set
from .outlines import draw_outlines as draw_outlines
from .qupath import read_geojson as read_geojson
