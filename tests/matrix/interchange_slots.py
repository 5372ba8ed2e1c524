"""The columns of the interchange matrix: every slot, the words that fill it with a part, and what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from interchange_parts import HEAD_SIZES, Part

#: A decoder of two narrow blocks, below whatever holds one.
SMALL_DECODER = (
    *("width=32", "blocks.depth=2", "blocks.block.mlp.hidden=48", "blocks.block.attention.qkv.heads=2"),
    *("blocks.block.attention.qkv.head_dim=16", "blocks.block.attention.qkv.kv_heads=2"),
)
SMALL_TOWER = (
    *("width=32", "image_size=32", "blocks.depth=1", "blocks.block.attention.qkv.heads=2"),
    *("blocks.block.attention.qkv.head_dim=16", "blocks.block.mlp.hidden=48"),
)


def below(key: str, words: Sequence[str]) -> list[str]:
    """Overrides below a key."""
    return [f"{key}.{word}" for word in words]


@dataclass(frozen=True)
class Slot:
    """A slot of a model.

    Attributes:
        title: what the table calls it.
        variant: the model.
        group: the group whose options fill the slot.
        key: where the slot is.
        small: overrides of the rest of the model that make it small, which the table does not show.
        more: further words that a part needs, as the user writes them; the sizes in them are the small part's.
        refusal: what is said of a part that does not fit; None where it does.
    """

    title: str
    variant: str
    group: str
    key: str
    small: tuple[str, ...] = ()
    more: Callable[[Part], list[str]] = lambda part: []
    refusal: Callable[[Part], str | None] = lambda part: None

    def choice(self, part: Part) -> list[str]:
        """The words that put a part into the slot, but for its size."""
        there, option = f"{self.key}=${{part:{part.option},{self.part}}}", f"{self.group}@{self.key}={part.option}"
        return [there if part.placed else option, *self.more(part)]

    @property
    def part(self) -> str:
        """What the slot's part is called in a model of its own."""
        return {"encoder": "image", "decoder": "decoder", "tokenizer": "vision_tokenizer"}[self.group]

    def words(self, part: Part) -> list[str]:
        """All overrides of a cell."""
        chosen, *more = self.choice(part)
        own = [] if part.placed else below(self.key, part.small)
        return [chosen, *self.small, *own, *more]


def _emu2(part: Part) -> list[str]:
    return [f"model.processor.image_tokens={(part.side // part.patch) ** 2}", *_tokens(part, "model.connector.width")]


def _tokens(part: Part, key: str) -> list[str]:
    """The width of tokens where it is not that of pooled features."""
    return [f"{key}={part.width}"] if part.option == "declip_resnet50" else []


def _eve_encoder(part: Part) -> list[str]:
    return [f"model.processor.images.patch={part.patch}"]


def _maps(part: Part) -> list[str]:
    """Tokens as maps, or the stages of a convolutional network; pictures of one size where positions are fixed."""
    if part.family == "stages":
        channels = "model.image_encoder.channels=[16,32,64,128]" if "resnet" in part.option else None
        three = "model.fusions=[{type: level_fusion, level: 0, in_channels: 96, channels: 32}]"
        return ["bev@model.image_encoder=stage_maps", channels or three]
    found = ["bev@model.image_encoder=token_maps"]
    if part.family != "own":
        found.append(f"model.image_encoder.patch={part.patch}")
    elif "clip_vit" in part.option:
        found.append("model.image_encoder.encoder.positions.type=resizable_positions")
    if part.family == "fixed":
        found.append(f"model.processor.view.size=[{part.side},{part.side}]")
    return found


_CONNECTOR = (
    *("norm.width=32", "depth=1", "block.mlp.hidden=48", "block.attention.qkv.head_dim=8"),
    "block.cross_attention.head_dim=8",
)
_TEXT = ("blocks.depth=1", "width=32", "blocks.block.mlp.hidden=48", "blocks.block.attention.qkv.heads=1")
_BEV = (
    "model.lift.grids=[{type: voxel_grid, counts: [10, 10, 2], size: [10.0, 10.0, 3.0], centre: [0, 0, -1]}]",
    *(
        "model.bev_encoder.in_channels=64",
        "model.bev_encoder.fused=16",
        "model.bev_encoder.width=16",
        "model.head.in_channels=16",
    ),
    *("model.frames=1", "model.processor.history={frames: 1, ids: []}"),
)

DUAL = Slot("dual encoder", "clip_tiny", "encoder", "model.image", (*below("model.text", _TEXT), "model.embed_dim=32"))
TEXT = Slot(
    "dual encoder",
    "clip_tiny",
    "encoder",
    "model.text",
    (*below("model.image", ("width=32", "image_size=32", "channels=[16,16,32]", "patch_size=2")), "model.embed_dim=32"),
)


def with_heads(slot: Slot, part: Part) -> Slot:
    """The same dual encoder with every head that an objective may need."""
    words = [f"+head@model.heads.{head}={head}" for head in HEAD_SIZES]
    words += [f"model.heads.{head}.{size}" for head, sizes in HEAD_SIZES.items() for size in sizes]
    return replace(slot, small=(*slot.small, *words, *_tokens(part, "model.heads.token_wise.image_width")))


EMU = Slot(
    "Emu",
    "emu_tiny",
    "encoder",
    "model.image_encoder",
    (*below("model.decoder", SMALL_DECODER), *below("model.connector", _CONNECTOR)),
    lambda part: _tokens(part, "model.connector.context_norm.width"),
)
EMU2 = Slot("Emu2", "emu2_tiny", "encoder", "model.image_encoder", tuple(below("model.decoder", SMALL_DECODER)), _emu2)
EVE = Slot(
    "EVE with an encoder",
    "eve_smollm2_encoder",
    "encoder",
    "model.vision_embedding.encoder",
    (
        *("decoder@model.decoder=eve_tiny", "tokenizer@model.processor.texts=qwen2_emoji"),
        *(*below("model.decoder", SMALL_DECODER), "model.vision_embedding.frozen=false"),
    ),
    _eve_encoder,
)
FAST_BEV = Slot("Fast-BEV", "fast_bev_tiny", "encoder", "model.image_encoder.encoder", _BEV, _maps)


def _teacher(part: Part) -> list[str]:
    """The teacher's pixels, and a view of as many patches as it then has."""
    grid = part.side // part.patch
    return [f"teacher.image_size={part.side}", f"model.processor.images.teacher_patch={32 // grid}"]


TEACHER = Slot(
    "EVE's teacher",
    "eve/emoji_prealign",
    "encoder",
    "teacher.model.image",
    (
        *("decoder@model.decoder=eve_tiny", "tokenizer@model.processor.texts=qwen2_emoji"),
        *("model.processor.images.teacher_size=32", "model.processor.images.image_size=32"),
        *("model.processor.images.patch=4", "teacher.weights=random", "teacher.model.embed_dim=32"),
        *(*below("model.decoder", SMALL_DECODER), "model.vision_embedding.hidden=16", "model.aligner.every=1"),
        *below("teacher.model.text", _TEXT),
    ),
    _teacher,
    lambda part: _TOKENS_WIDER if part.option == "declip_resnet50" else None,
)
_TOKENS_WIDER = "teacher.model.image gives tokens of width 128, teacher.model.image_projection reads width 64"
STUDENT = Slot(
    "masked student",
    "eva_mim_tiny",
    "encoder",
    "model.image",
    ("model.target_width=32",),
    refusal=lambda part: (
        None if part.family == "own" else "its patches cannot be replaced; use type: vision_transformer"
    ),
)
#: Slots of models that hold an image encoder.
IMAGE_SLOTS = [DUAL, EMU, EMU2, EVE, FAST_BEV]

_IN_EMU = (*below("model.image_encoder", SMALL_TOWER), *below("model.connector", _CONNECTOR))
_IN_EMU2 = (*below("model.image_encoder", SMALL_TOWER), "model.processor.image_tokens=16")


def _vocabulary(size: int) -> Callable[[Part], list[str]]:
    def words(part: Part) -> list[str]:
        """The tokenizer's ids; none of them need be padding."""
        if part.placed:
            return []
        padding = ["model.decoder.pad_id=null"] if part.option == "emu3_8b" else []
        return [f"model.decoder.vocab_size={size}", *padding]

    return words


def _plain(part: Part) -> str | None:
    if part.option != "qwen2_5_7b_decoupled":
        return None
    return "weights of their own for pictures, which only an EVE uses"


#: Slots of models that hold a causal decoder.
DECODER_SLOTS = [
    Slot("Emu", "emu_tiny", "decoder", "model.decoder", _IN_EMU, _vocabulary(1033), _plain),
    Slot("Emu2", "emu2_tiny", "decoder", "model.decoder", _IN_EMU2, _vocabulary(1301), _plain),
    Slot("Emu3", "emu3_tiny", "decoder", "model.decoder", (), refusal=_plain),
    Slot("EVE", "eve_tiny", "decoder", "model.decoder", (), _vocabulary(1027)),
    Slot("CapsFusion's student", "capsfus_llama_tiny", "decoder", "model.decoder", (), _vocabulary(1027), _plain),
]

EMU3 = Slot(
    "Emu3",
    "emu3_tiny",
    "tokenizer",
    "model.vision_tokenizer",
    tuple(below("model.decoder", SMALL_DECODER)),
    lambda part: [] if part.codes == 512 else [f"model.processor.texts.codebook_size={part.codes}"],
)

#: Captioners of CapsFusion: model -> the word that chooses the captioner, and what is said of one that does not write.
CAPTIONERS: dict[str, tuple[str, str | None]] = {
    "emu_tiny": ("captioner=zoo", None),
    "emu2_tiny": ("captioner=zoo", None),
    "eve_tiny": ("captioner=zoo", None),
    "eve_v2_tiny": ("captioner=zoo", None),
    "emu3_tiny": ("captioner=zoo", None),
    "blip": ("captioner=transformers", None),
    "git": ("captioner=transformers", None),
    "clip_tiny": ("captioner=zoo", "captioner.model needs an Emu3 or an Eve or an Emu"),
}
