"""Modules whose import registers the parts of this room."""

from multimodal_zoo.tokenizers import adapters as adapters
from multimodal_zoo.tokenizers import clip_bpe as clip_bpe
from multimodal_zoo.tokenizers import emu3_ids as emu3_ids
