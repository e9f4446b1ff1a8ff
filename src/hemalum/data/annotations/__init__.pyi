from .aperio_xml import read_aperio_xml as read_aperio_xml
from .imagej_rois import read_roi_set as read_roi_set
from .matlab import read_mat as read_mat
from .numpy_arrays import NpyRows as NpyRows
from .numpy_arrays import read_npy as read_npy
from .outlines import draw_outlines as draw_outlines
from .qupath import read_geojson as read_geojson
from .qupath import read_geojson_labels as read_geojson_labels
