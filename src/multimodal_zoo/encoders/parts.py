"""Modules whose import registers the parts of this room."""

from multimodal_zoo.encoders import adapters as adapters
from multimodal_zoo.encoders import attention_pool as attention_pool
from multimodal_zoo.encoders import causal_former as causal_former
from multimodal_zoo.encoders import dual_encoder as dual_encoder
from multimodal_zoo.encoders import eve_embedding as eve_embedding
from multimodal_zoo.encoders import heads as heads
from multimodal_zoo.encoders import masked_student as masked_student
from multimodal_zoo.encoders import matching as matching
from multimodal_zoo.encoders import modified_resnet as modified_resnet
from multimodal_zoo.encoders import patch_teacher as patch_teacher
from multimodal_zoo.encoders import pooled_tokens as pooled_tokens
from multimodal_zoo.encoders import pooling as pooling
from multimodal_zoo.encoders import residual_network as residual_network
from multimodal_zoo.encoders import text_adapters as text_adapters
from multimodal_zoo.encoders import text_transformer as text_transformer
from multimodal_zoo.encoders import vision_transformer as vision_transformer
