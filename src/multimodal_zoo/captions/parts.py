"""Modules whose import registers the parts of this room."""

from multimodal_zoo.captions import prompts as prompts
from multimodal_zoo.captions.engines import echo_engine as echo_engine
from multimodal_zoo.captions.engines import template_engine as template_engine
