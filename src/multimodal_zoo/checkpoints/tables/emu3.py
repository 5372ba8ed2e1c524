"""The names of a whole Emu3, decoder and visual tokenizer, as published and in both namings of transformers.

The published repositories hold either part; files of transformers hold both. Each table takes files with one part alone
too, so that the published decoder fills an Emu3's decoder.
"""

from __future__ import annotations

from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.tables.causal_decoder import decoder_rules
from multimodal_zoo.checkpoints.tables.emu3_vision import EMU3_VISION, TRANSFORMERS_VISION

_OURS = "vision_tokenizer."


def _table(name: str, body: str, head: str, vision: Naming) -> Naming:
    return Naming(name, decoder_rules(body, head, "decoder.")) + vision


#: BAAI/Emu3-Stage1, -Chat, -Gen, and BAAI/Emu3-VisionTokenizer.
EMU3 = _table("emu3", "model.", "lm_head.", EMU3_VISION.under("", _OURS))
#: What transformers' conversion script wrote first (Emu3-Chat-hf, Emu3-Gen-hf).
HF = _table("hf_emu3", "text_model.model.", "text_model.lm_head.", TRANSFORMERS_VISION.under("vqmodel.", _OURS))
#: transformers since version 5: `Emu3ForConditionalGeneration`.
TRANSFORMERS = _table(
    "transformers_emu3", "model.text_model.", "lm_head.", TRANSFORMERS_VISION.under("model.vqmodel.", _OURS)
)
ALL = (EMU3, HF, TRANSFORMERS)
