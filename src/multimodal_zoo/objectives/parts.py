"""Modules whose import registers the parts of this room."""

from multimodal_zoo.objectives.contrastive import ContrastiveObjective as ContrastiveObjective
from multimodal_zoo.objectives.masked_image import MaskedImageObjective as MaskedImageObjective
