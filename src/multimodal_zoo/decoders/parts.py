"""Modules whose import registers the parts of this room."""

from multimodal_zoo.decoders import causal_decoder as causal_decoder
from multimodal_zoo.decoders import conditions as conditions
from multimodal_zoo.decoders import diffusion_parts as diffusion_parts
from multimodal_zoo.decoders import emu as emu
from multimodal_zoo.decoders import emu3 as emu3
from multimodal_zoo.decoders import eve as eve
from multimodal_zoo.decoders import language_model as language_model
from multimodal_zoo.decoders import patch_aligning as patch_aligning
from multimodal_zoo.decoders import safety_checker as safety_checker
from multimodal_zoo.decoders import visual_decoder as visual_decoder
