"""Modules whose import registers the parts of this room."""

from multimodal_zoo.nn import attention as attention
from multimodal_zoo.nn import cross_block as cross_block
from multimodal_zoo.nn import decoupled as decoupled
from multimodal_zoo.nn import init as init
from multimodal_zoo.nn import linear as linear
from multimodal_zoo.nn import low_rank as low_rank
from multimodal_zoo.nn import mlp as mlp
from multimodal_zoo.nn import norms as norms
from multimodal_zoo.nn import patches as patches
from multimodal_zoo.nn import positions as positions
from multimodal_zoo.nn import projections as projections
from multimodal_zoo.nn import regularize as regularize
from multimodal_zoo.nn import relative_positions as relative_positions
from multimodal_zoo.nn import rotary as rotary
from multimodal_zoo.nn import transformer as transformer
