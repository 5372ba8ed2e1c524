"""Modules whose import registers the parts of this room."""

from multimodal_zoo.captions import columns as columns
from multimodal_zoo.captions import json_source as json_source
from multimodal_zoo.captions import opening as opening
from multimodal_zoo.captions import parquet_source as parquet_source
from multimodal_zoo.captions import process_runner as process_runner
from multimodal_zoo.captions import prompts as prompts
from multimodal_zoo.captions import ray_runner as ray_runner
from multimodal_zoo.captions import row_rules as row_rules
from multimodal_zoo.captions import tar_source as tar_source
from multimodal_zoo.captions import transformers_captioner as transformers_captioner
from multimodal_zoo.captions import zoo_captioner as zoo_captioner
from multimodal_zoo.captions.engines import auto_engine as auto_engine
from multimodal_zoo.captions.engines import echo_engine as echo_engine
from multimodal_zoo.captions.engines import llama_cpp_engine as llama_cpp_engine
from multimodal_zoo.captions.engines import openai_engine as openai_engine
from multimodal_zoo.captions.engines import template_engine as template_engine
from multimodal_zoo.captions.engines import transformers_engine as transformers_engine
from multimodal_zoo.captions.engines import vllm_engine as vllm_engine
from multimodal_zoo.captions.engines import zoo_engine as zoo_engine
from multimodal_zoo.captions.filters import facts as facts
from multimodal_zoo.captions.filters import form as form
from multimodal_zoo.captions.filters import language as language
from multimodal_zoo.captions.filters import likeness as likeness
from multimodal_zoo.captions.filters import wording as wording
