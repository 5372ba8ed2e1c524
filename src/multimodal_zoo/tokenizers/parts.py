"""Modules whose import registers the parts of this room."""

from multimodal_zoo.tokenizers import adapters as adapters
from multimodal_zoo.tokenizers import added_tokens as added_tokens
from multimodal_zoo.tokenizers import clip_bpe as clip_bpe
from multimodal_zoo.tokenizers import emu3_ids as emu3_ids
from multimodal_zoo.tokenizers import emu3_text as emu3_text
from multimodal_zoo.tokenizers import emu3_vision as emu3_vision
from multimodal_zoo.tokenizers import emu3_vision_decoder as emu3_vision_decoder
from multimodal_zoo.tokenizers import emu3_vision_encoder as emu3_vision_encoder
from multimodal_zoo.tokenizers import gguf_tokenizer as gguf_tokenizer
from multimodal_zoo.tokenizers import json_tokenizer as json_tokenizer
from multimodal_zoo.tokenizers import llama_tokenizer as llama_tokenizer
from multimodal_zoo.tokenizers import quantizers as quantizers
from multimodal_zoo.tokenizers import qwen2_tokenizer as qwen2_tokenizer
from multimodal_zoo.tokenizers import vocabularies as vocabularies
