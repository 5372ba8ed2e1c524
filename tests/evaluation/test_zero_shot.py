import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from multimodal_zoo.data.processor import ImageTextProcessor
from multimodal_zoo.evaluation.zero_shot import (
    ClassPrompts,
    ClassTexts,
    DatasetPrompts,
    ZeroShotClassification,
    accuracies,
    build_classifier,
    class_means,
    confusion,
)
from multimodal_zoo.tokenizers.clip_bpe import ClipTokenizer

CASE = Path(__file__).parent / "goldens/eva_clip/zero_shot_classification"


def seeded(key, shape):
    """The goldens' rule for weights: see the note in case.json's folder."""
    x = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(tuple(shape))
    x = torch.from_numpy(np.asarray(x, dtype=np.float32))
    if len(shape) >= 2:
        return x / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.02 * x if key.rsplit(".", 1)[-1] in ("weight", "gamma") else 0.02 * x


class Reference(torch.nn.Module):
    """The golden's two towers as plain functions of its state, so that this test needs no other room."""

    def __init__(self, manifest):
        super().__init__()
        self.state = {key: seeded(key, shape) for key, shape in manifest.items()}
        self.anchor = torch.nn.Parameter(torch.zeros(()))

    def norm(self, x, name, eps):
        return F.layer_norm(x, x.shape[-1:], self.state[name + ".weight"], self.state[name + ".bias"], eps)

    def dense(self, x, name):
        return F.linear(x, self.state[name + ".weight"], self.state[name + ".bias"])

    @staticmethod
    def attend(qkv, heads, causal):
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in qkv.chunk(3, dim=-1))
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)

    def encode_image(self, images):
        s = self.state
        x = F.conv2d(images, s["visual.patch_embed.proj.weight"], s["visual.patch_embed.proj.bias"], stride=7)
        x = torch.cat([s["visual.cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
        x = x + s["visual.pos_embed"]
        for block in ("visual.blocks.0", "visual.blocks.1"):
            bias = torch.cat([s[block + ".attn.q_bias"], torch.zeros(24), s[block + ".attn.v_bias"]])
            qkv = F.linear(self.norm(x, block + ".norm1", 1e-6), s[block + ".attn.qkv.weight"], bias)
            x = x + self.dense(self.attend(qkv, 3, False), block + ".attn.proj")
            hidden = F.gelu(self.dense(self.norm(x, block + ".norm2", 1e-6), block + ".mlp.fc1"))
            x = x + self.dense(hidden, block + ".mlp.fc2")
        return F.normalize(self.dense(self.norm(x, "visual.norm", 1e-6)[:, 0], "visual.head"), dim=-1)

    def encode_text(self, ids):
        s, block = self.state, "text.transformer.resblocks.0"
        x = s["text.token_embedding.weight"][ids] + s["text.positional_embedding"][: ids.shape[1]]
        normed = self.norm(x, block + ".ln_1", 1e-5)
        qkv = F.linear(normed, s[block + ".attn.in_proj_weight"], s[block + ".attn.in_proj_bias"])
        x = x + self.dense(self.attend(qkv, 2, True), block + ".attn.out_proj")
        hidden = F.gelu(self.dense(self.norm(x, block + ".ln_2", 1e-5), block + ".mlp.c_fc"))
        x = x + self.dense(hidden, block + ".mlp.c_proj")
        x = self.norm(x, "text.ln_final", 1e-5)[torch.arange(len(ids)), ids.argmax(dim=-1)]
        return F.normalize(x @ s["text.text_projection"], dim=-1)


@pytest.fixture(scope="module")
def golden():
    case = json.loads((CASE / "case.json").read_text())
    io = load_file(CASE / "io.safetensors")
    processor = ImageTextProcessor(images=None, texts=ClipTokenizer())
    return case, io, Reference(case["manifest"]), processor


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_golden_classifier(golden, batch_size):
    case, io, model, processor = golden
    found = build_classifier(model, processor, case["classnames"], case["templates"], batch_size)
    torch.testing.assert_close(found.T, io["classifier"], atol=1e-5, rtol=2e-5)


def test_golden_logits_and_accuracy(golden):
    case, io, model, processor = golden
    vectors = build_classifier(model, processor, case["classnames"], case["templates"], 16)
    logits = 100 * model.encode_image(io["image"]) @ vectors.T
    torch.testing.assert_close(logits, io["logits"], atol=2e-3, rtol=1e-4)
    found = accuracies(logits, io["target"])
    torch.testing.assert_close(torch.tensor([found["top1"], found["top5"]]), io["top1_top5"], atol=1e-6, rtol=0)


def test_accuracies_against_brute_force():
    logits, target = torch.randn(50, 7), torch.randint(6, (50,))  # class 6 never occurs
    order = logits.argsort(dim=1, descending=True)
    found = accuracies(logits, target)
    assert found["top1"] == pytest.approx((order[:, 0] == target).float().mean().item())
    assert found["top5"] == pytest.approx((order[:, :5] == target[:, None]).any(1).float().mean().item())
    recalls = [(order[target == c, 0] == c).float().mean().item() for c in range(6)]
    assert found["mean_per_class"] == pytest.approx(sum(recalls) / 6, abs=1e-6)


def test_confusion_counts():
    found = confusion(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2]), 3)
    assert found.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]


def test_class_means_equal_the_plain_way(model, processor):
    texts = [["red", "a red one"], ["blue"], ["red", "green thing", "x"]]
    found = class_means(model, processor, texts, batch_size=2)
    model.eval()
    plain = [F.normalize(model.encode_text(processor.texts(t)).mean(0), dim=-1) for t in texts]
    torch.testing.assert_close(found, torch.stack(plain).detach())


def test_shared_prompts_are_embedded_once(model, processor):
    build_classifier(model, processor, ["red", "blue", "red"], ["{c}", "a photo"[:0] + "{c}", "one {c}"], 64)
    assert sum(shape[0] for shape in model.shapes) == 4


def test_classifier_errors(model, processor):
    with pytest.raises(ValueError, match=r"'a photo' has no place"):
        build_classifier(model, processor, ["red"], ["a photo"], 4)
    with pytest.raises(ValueError, match="got 0 and 1"):
        build_classifier(model, processor, [], ["{c}"], 4)
    with pytest.raises(ValueError, match=r"classes \[1\] have no text"):
        class_means(model, processor, [["a"], []], 4)


@pytest.mark.parametrize("label", ["label", "colour"])
def test_evaluator_by_number_and_by_name(model, processor, squares, cpu, label):
    dataset = squares()
    result = ZeroShotClassification(dataset, DatasetPrompts(), label, batch_size=3)(model, processor, cpu)
    vectors = build_classifier(model, processor, dataset.classnames, dataset.templates, 64)
    model.eval()
    pixels = processor.images([document.image for document in dataset.items])
    expected = accuracies(model.encode_image(pixels) @ vectors.T, torch.arange(16) % 8)
    assert {key: result.metrics[key] for key in expected} == pytest.approx(expected)
    assert result.figures["confusion"].png.startswith(b"\x89PNG")
    assert result.details["majority_class"] == pytest.approx(1 / 8)
    assert result.details["attribution"] == ["squares: drawn by the tests"]


def test_class_texts_come_from_another_dataset(model, processor, squares, cpu):
    part = ClassTexts(squares(shades=3), label="colour")
    names, vectors = part.vectors(model, processor, None, 8, cpu)
    assert names == sorted(squares().classnames)
    expected = class_means(model, processor, [["black 0", "black shade 0", "black shade shade 0"]], 8)
    torch.testing.assert_close(vectors[names.index("black")], expected[0])


def test_evaluator_errors(model, processor, squares, cpu):
    empty = squares(shades=0)
    empty.skips.add("broken image", "a.png")
    classes = ClassPrompts(["red"], ["{c}"])
    with pytest.raises(ValueError, match=r"no usable (document|sample).*1 skipped: broken image 1 \(a.png\)"):
        ZeroShotClassification(empty, classes, "colour")(model, processor, cpu)
    with pytest.raises(ValueError, match=r"label 'colour': 7 values are no class: black"):
        ZeroShotClassification(squares(), classes, "colour")(model, processor, cpu)
    with pytest.raises(ValueError, match=r"16 of 16 documents of coloured squares have no 'breed'.*they have colour"):
        ZeroShotClassification(squares(), classes, "breed")(model, processor, cpu)
    bare = squares()
    bare.templates = []
    with pytest.raises(ValueError, match="brings no class names and templates"):
        ZeroShotClassification(bare, DatasetPrompts(), "label")(model, processor, cpu)
