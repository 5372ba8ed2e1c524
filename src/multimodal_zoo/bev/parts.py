"""Modules whose import registers the parts of this room."""

from multimodal_zoo.bev import anchors as anchors
from multimodal_zoo.bev import bev_encoder as bev_encoder
from multimodal_zoo.bev import box_coder as box_coder
from multimodal_zoo.bev import convolution_maps as convolution_maps
from multimodal_zoo.bev import fast_bev as fast_bev
from multimodal_zoo.bev import fast_ray as fast_ray
from multimodal_zoo.bev import feature_pyramid as feature_pyramid
from multimodal_zoo.bev import head as head
from multimodal_zoo.bev import post_processing as post_processing
from multimodal_zoo.bev import residual_maps as residual_maps
from multimodal_zoo.bev import stage_maps as stage_maps
from multimodal_zoo.bev import suppression as suppression
from multimodal_zoo.bev import token_maps as token_maps
