"""Modules whose import registers the parts of this room."""

from multimodal_zoo.decoders import causal_decoder as causal_decoder
from multimodal_zoo.decoders import emu as emu
from multimodal_zoo.decoders import emu3 as emu3
from multimodal_zoo.decoders import eve as eve
from multimodal_zoo.decoders import patch_aligning as patch_aligning
