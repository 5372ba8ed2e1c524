"""What every cell of the interchange matrix does: build, one step, save, read back, compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from interchange_parts import Part
from interchange_slots import Slot
from omegaconf import DictConfig
from PIL import Image as PilImage
from torch import Tensor, nn
from torch.testing import assert_close

import multimodal_zoo as zoo
from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.bev.geometry import lidar_to_image, pose
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.data.picture_batches import picture_rows_batch
from multimodal_zoo.data.visual_batches import visual_rows_batch
from multimodal_zoo.objectives.batch import ImageTextBatch, MultiViewBatch, TokenBatch
from multimodal_zoo.objectives.detection_batch import DetectionBatch
from multimodal_zoo.registry import build
from multimodal_zoo.zoo import build_model, declaration


def node_of(slot: Slot, part: Part, places: dict[str, Path]) -> dict[str, Any]:
    """The declaration of a cell; places that the test made stand for their names."""
    return declaration(slot.variant, placed(slot.words(part), places))


def placed(words: Sequence[str], places: Mapping[str, Path]) -> list[str]:
    """The words with the places that the test made in place of their names."""
    found = list(words)
    for name, place in places.items():
        found = [word.replace(f"part:{name},", f"part:{place},") for word in found]
    return found


@cache
def objective_node(name: str) -> DictConfig:
    """An objective as its file declares it, for embeddings of 32 numbers."""
    found: DictConfig = zoo.compose(None, ["+model=clip_tiny", "model.embed_dim=32", f"+objective={name}"])
    return found.objective


def objective_of(name: str) -> nn.Module:
    """A new objective."""
    found: nn.Module = build(objective_node(name), path="objective")
    return found


def pictures(count: int = 2, height: int = 40, width: int = 40) -> list[np.ndarray]:
    """Noise."""
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def coloured(root: Path) -> Path:
    """Eight pictures of two colours as `train/COLOUR/NUMBER.png`."""
    for number in range(8):
        name, colour = (("red", (200, 20, 30)), ("blue", (20, 40, 210)))[number % 2]
        (root / "train" / name).mkdir(parents=True, exist_ok=True)
        PilImage.new("RGB", (40, 40 + number), colour).save(root / "train" / name / f"{number}.png")
    return root


def scenes(height: int, width: int) -> DetectionBatch:
    """A scene that two cameras see, forward and backward, with two cars."""
    intrinsic = torch.tensor([[0.8 * width, 0.0, width / 2], [0.0, 0.8 * width, height / 2], [0.0, 0.0, 1.0]])
    forward = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    backward = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, -1.0, 0.0]])
    seen = [lidar_to_image(intrinsic, pose(turned, torch.tensor([0.0, 0.0, 0.2]))) for turned in (forward, backward)]
    cameras = Cameras(torch.stack(seen).double()[None, None], (height, width))
    box = [0.0, 8.0, -1.0, 1.8, 4.2, 1.6, 0.3, 0.0, 0.0]
    boxes = torch.tensor([box, [3.0, -9.0, *box[2:]]])
    known = torch.ones(2, dtype=torch.bool)
    images = torch.randn(1, 1, 2, 3, height, width)
    return DetectionBatch(images, cameras, (boxes,), (torch.tensor([0, 1]),), (known,), ("scene",))


def pairs(model: nn.Module, count: int = 3) -> ImageTextBatch:
    """Pictures with captions, for a dual encoder."""
    size = int(model.image.image_size)
    images = torch.randn(count, 3, size, size)
    ids = model.processor.texts(["a cat", "the sun", "a red dog"][:count])
    return ImageTextBatch(images, ids, [str(n) for n in range(count)])


def views(model: nn.Module, count: int = 4) -> MultiViewBatch:
    """Pairs in all views that objectives ask for, with masked words."""
    size, words = int(model.image.image_size), int(model.text.vocab_size)
    images = {name: torch.randn(count, 3, size, size) for name in ("plain", "first", "second")}
    ids = torch.randint(1, 1000, (count, 6))
    ids[:, 0], ids[:, -1] = words - 2, words - 1
    texts = {name: ids.clone() for name in ("plain", "masked", "augmented")}
    labels = torch.full_like(ids, -100)
    labels[:, 2] = ids[:, 2]
    return MultiViewBatch(images, texts, {"masked": labels}, [str(n) for n in range(count)], None)


def told() -> list[Document]:
    """Documents of a picture and what is said of it."""
    said = [Text("what is it?", "user"), Text("a red cat", "assistant")]
    return [Document([Image(one), *said], {"key": str(n)}) for n, one in enumerate(pictures())]


def lesson(model: nn.Module, teacher: bool = False) -> Any:
    """The batch that a model with words learns from, made by its own processor."""
    kind = type(model).__name__
    if kind == "Emu":
        plain = [Document([one.segments[0], Text("a red cat")], one.meta) for one in told()]
        return visual_rows_batch([[model.processor.sample(one, Random(0))] for one in plain], model.processor.ids.pad)
    if kind == "Eve":
        rows = [[model.processor.sample(one, Random(0), teacher=teacher)] for one in told()]
        return picture_rows_batch(rows, model.processor.ids.pad)
    return tokens(model)


def tokens(model: nn.Module) -> TokenBatch:
    """Words, and for an Emu3 the codes of a picture too."""
    ids = torch.tensor([model.processor.text_ids(text)[:3] for text in ("a red cat sits", "the sun is up high")])
    if type(model).__name__ == "Emu3":
        codes = model.encode(torch.rand(2, 3, 8, 8) * 2 - 1)
        ids = torch.cat([ids, torch.tensor([model.processor.image_ids(one) for one in codes])], 1)
    places = torch.arange(ids.shape[1]).expand_as(ids)
    return TokenBatch(ids, torch.ones(ids.shape), torch.zeros_like(ids), places, ["a", "b"])


#: Kind of model -> the objective of its training.
OBJECTIVES = {"Emu": "next_element", "Eve": "next_token", "Emu3": "next_token", "LanguageModel": "next_token"}


def step(model: nn.Module, objective: nn.Module, batch: Any, inside: nn.Module) -> None:
    """One optimiser's step; the swapped part must learn by it."""
    check = getattr(objective, "check", None)
    if callable(check):
        check(model)
    loss = objective(model.train(), batch)["loss"]
    assert bool(loss.isfinite()), float(loss)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    loss.backward()
    reached = [p.grad for p in inside.parameters() if p.grad is not None]
    assert any(bool(gradient.any()) for gradient in reached), "no gradient reaches the part"
    assert all(bool(gradient.isfinite().all()) for gradient in reached)
    optimizer.step()


def round_trip(model: nn.Module, folder: Path, outputs: Callable[[nn.Module], Tensor]) -> nn.Module:
    """Save the model, read it back, and compare what both give; returns what was read."""
    save_model(model, folder)
    again = zoo.from_pretrained(folder)
    with torch.no_grad():
        assert_close(outputs(again), outputs(model.eval()), atol=0.0, rtol=0.0)
    return again


def states(batch: Any) -> Callable[[nn.Module], Tensor]:
    """What a model with words gives of a batch."""
    return lambda model: model(**batch.inputs())


def part_of(model: nn.Module, slot: Slot) -> nn.Module:
    """The module in the slot."""
    return model.get_submodule(slot.key.removeprefix("model."))


def run_cell(slot: Slot, node: dict[str, Any], folder: Path, inside: bool = True) -> nn.Module:
    """A step and a round trip of a model with words; `inside`: whether the part in the slot learns by the step."""
    model = build_model(node)
    batch = lesson(model)
    step(model, objective_of(OBJECTIVES[type(model).__name__]), batch, part_of(model, slot) if inside else model)
    return round_trip(model, folder, states(batch))


def captioned(name: str, folder: Path, places: Mapping[str, Path]) -> Path:
    """A folder of a small model that describes pictures: ours, BLIP's or GIT's architecture."""
    if name == "clip_tiny":
        return places["RUN"]
    if name not in ("blip", "git"):
        model = zoo.create(name)
        model.weights = "made for a test"
        return save_model(model, folder)
    return _borrowed_captioner(name, folder)


def _borrowed_captioner(name: str, folder: Path) -> Path:
    import transformers

    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "cat"]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"))
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    seen = {**sizes, "image_size": 32, "patch_size": 16}
    text = {**sizes, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, "vocab_size": len(words)}
    text["max_position_embeddings"] = 64
    if name == "git":
        model: Any = transformers.GitForCausalLM(transformers.GitConfig(vision_config=seen, **text))
        reader = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
        transformers.GitProcessor(reader, tokenizer).save_pretrained(folder)
    else:
        text |= {"encoder_hidden_size": 16, "sep_token_id": 3, "projection_dim": 16}
        sides = {"projection_dim": 16, "image_text_hidden_size": 16}
        model = transformers.BlipForConditionalGeneration(
            transformers.BlipConfig(text_config=text, vision_config=seen, **sides)
        )
        reader = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
        transformers.BlipProcessor(reader, tokenizer).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder
