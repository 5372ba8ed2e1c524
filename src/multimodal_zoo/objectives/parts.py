"""Modules whose import registers the parts of this room."""

from multimodal_zoo.objectives.contrastive import ContrastiveObjective as ContrastiveObjective
