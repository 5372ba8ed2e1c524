"""Modules whose import registers the parts of this room."""

from multimodal_zoo.objectives.contrastive import ContrastiveObjective as ContrastiveObjective
from multimodal_zoo.objectives.frames import VideoTextObjective as VideoTextObjective
from multimodal_zoo.objectives.masked_image import MaskedImageObjective as MaskedImageObjective
from multimodal_zoo.objectives.queue import NeighbourQueue as NeighbourQueue
