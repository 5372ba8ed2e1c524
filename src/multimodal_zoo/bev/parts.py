"""Modules whose import registers the parts of this room."""

from multimodal_zoo.bev import bev_encoder as bev_encoder
from multimodal_zoo.bev import fast_ray as fast_ray
from multimodal_zoo.bev import feature_pyramid as feature_pyramid
from multimodal_zoo.bev import residual_maps as residual_maps
from multimodal_zoo.bev import token_maps as token_maps
