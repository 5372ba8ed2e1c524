"""A tiny LLaMA of transformers with a tokenizer of characters, as a folder of Hugging Face."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from torch import nn

#: End, begin, padding and unknown token, then characters.
SPECIAL = ("</s>", "<s>", "[PAD]", "<unk>")
CHARACTERS = [*SPECIAL, " ", "\n", *string.ascii_lowercase, ".", ",", ":"]
SIZES = {
    "vocab_size": len(CHARACTERS), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
CHAT = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def tiny(kind: str = "Llama", **changes: Any) -> Any:
    """A model whose likeliest ids vary, the end among them."""
    import transformers

    torch.manual_seed(3)
    config = getattr(transformers, f"{kind}Config")(
        **{**SIZES, "eos_token_id": 0, "bos_token_id": 1, "pad_token_id": 2, "tie_word_embeddings": False, **changes}
    )
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        model.lm_head.weight[0] *= 4  # the end comes more often
    return model.eval()


def write_tokenizer(folder: Path, begins: bool = False, chat: str | None = CHAT) -> None:
    """A tokenizer of single characters; `begins` puts a begin token in front of texts, as LLaMA's does."""
    from tokenizers.decoders import Fuse
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    from tokenizers import Regex, Tokenizer

    words = Tokenizer(WordLevel({word: number for number, word in enumerate(CHARACTERS)}, unk_token="<unk>"))
    words.pre_tokenizer, words.decoder = Split(Regex(r"[\s\S]"), "isolated"), Fuse()
    if begins:
        words.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = dict(zip(("eos_token", "bos_token", "pad_token", "unk_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=words, chat_template=chat, **names).save_pretrained(folder)


def write_folder(folder: Path, model: Any, begins: bool = False) -> Path:
    """The model and its tokenizer."""
    model.save_pretrained(folder)
    write_tokenizer(folder, begins)
    return folder


@torch.no_grad()
def alone(model: Any, ids: list[int], beams: int = 1, limit: int = 12, **options: Any) -> list[int]:
    """What transformers' own `generate` writes behind one prompt."""
    from transformers import GenerationConfig

    settings = GenerationConfig(
        max_new_tokens=limit, num_beams=beams, do_sample=False, eos_token_id=[0], pad_token_id=2, **options
    )
    rows = torch.tensor([ids])
    written = model.generate(rows, attention_mask=torch.ones_like(rows), generation_config=settings)
    return [number for number in written[0, len(ids) :].tolist() if number not in (0, 2)]
