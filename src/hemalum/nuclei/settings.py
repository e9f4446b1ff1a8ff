"""How maps become nuclei: the settings of separation, kept in a model's card."""

from pydantic import Field

from hemalum.settings import Strict


class SeparationSettings(Strict):
    """How maps become nuclei. Lengths and areas are in pixels of the separation grid (mpp / output_upsampling)."""

    foreground: float = Field(0.5, gt=0, lt=1, description="a pixel with at least this probability is nucleus")
    marker: float = Field(0.5, gt=0, lt=1, description="threshold on the map that markers are cut from")
    min_depth: float = Field(
        0.1, gt=0, le=1, description="neighboring maxima closer than this to their saddle are one nucleus"
    )
    min_relative_depth: float = Field(
        0.0, ge=0, lt=1, description="as min_depth, but as a share of the lower of the two maxima; 0: off"
    )
    smoothing: int = Field(0, ge=0, le=16, description="rounds of blur of the peaks, each reaching 1 px; 0: off")
    merge_depth: float = Field(
        0.0,
        ge=0,
        le=1,
        description="neighbors are one nucleus where relative depth + 2 x the solidity lost is less; 0: off",
    )
    min_marker_area: int = Field(3, ge=1, description="smaller markers join their neighbor (px)")
    min_area: int = Field(12, ge=1, description="smaller nuclei are dropped (px)")
    min_probability: float = Field(0.0, ge=0, lt=1, description="nuclei with a lower mean foreground are dropped")
    min_hematoxylin: float = Field(
        0.0, ge=0, lt=1, description="nuclei of an H&E image with less mean optical density of it are dropped; 0: off"
    )
    max_hole_area: int = Field(400, ge=0, description="enclosed background up to this area is filled (px)")
    straighten: int = Field(
        0, ge=0, le=16, description="borders of touching nuclei are smoothed within this radius (px); 0: off"
    )
    spur_width: int = Field(0, ge=0, le=8, description="spurs of an outline up to this width go (px); 0: off")
