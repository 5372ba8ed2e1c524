"""Modules whose import registers the parts of this room."""

from multimodal_zoo.encoders import adapters as adapters
from multimodal_zoo.encoders import dual_encoder as dual_encoder
from multimodal_zoo.encoders import heads as heads
from multimodal_zoo.encoders import masked_student as masked_student
from multimodal_zoo.encoders import patch_teacher as patch_teacher
from multimodal_zoo.encoders import pooling as pooling
from multimodal_zoo.encoders import residual_network as residual_network
from multimodal_zoo.encoders import text_transformer as text_transformer
from multimodal_zoo.encoders import vision_transformer as vision_transformer
