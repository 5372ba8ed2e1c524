"""What a naming writes: for each, the files of a folder and the configuration that its readers expect."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from multimodal_zoo.checkpoints.emu3_sources import VISION_FOLDER
from multimodal_zoo.checkpoints.emu_sources import BODY, SIZES
from multimodal_zoo.checkpoints.errors import CheckpointError
from multimodal_zoo.checkpoints.eve_sources import PREPROCESSOR, RANKS, WORDS, words_config
from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.tables import (
    causal_decoder,
    declip,
    declip_write,
    diffusion,
    emu,
    emu3,
    emu3_vision,
    emu3_write,
    emu_write,
    eva_clip,
    eva_clip_write,
    eve,
    eve_write,
)
from multimodal_zoo.checkpoints.tables.causal_decoder_write import decoder_config, language_model_config
from multimodal_zoo.checkpoints.tables.nodes import below
from multimodal_zoo.registry import build, rewritten
from multimodal_zoo.tokenizers.emu3_ids import SPECIAL
from multimodal_zoo.tokenizers.vocabularies import RANKS_FILE, VISION_FILE, ranks_text

log = logging.getLogger(__name__)
Node = Mapping[str, Any]


class Piece(NamedTuple):
    """What is written into one folder.

    Attributes:
        naming: the table from the files' names to ours.
        config: makes the configuration from the model node, or from that of `part`.
        config_name: its file.
        stem: name of the weight file, without suffix.
        part: the part of the model whose tensors are written, `a.b` for one inside another; None for all. A model
            without it skips the piece.
        own: whether `config` takes the node of `part` instead of the model's.
        folder: where, inside the folder that is asked for.
        beside: writes further files into the folder, given the model node.
        without: a part whose tensors other pieces write.
    """

    naming: Naming
    config: Callable[[Node], dict[str, Any]]
    config_name: str = "config.json"
    stem: str = "model"
    part: str | None = None
    own: bool = False
    folder: str = "."
    beside: Callable[[Node, Path], None] | None = None
    without: str | None = None

    def concerns(self, node: Node) -> bool:
        """Whether a model has what the piece writes."""
        return self.part is None or below(node, self.part) is not None

    def configuration(self, node: Node) -> dict[str, Any]:
        """The configuration of a model.

        Raises:
            CheckpointError: a model that it cannot describe.
        """
        return self.config(below(node, self.part) if self.own and self.part is not None else node)

    def state(self, model: nn.Module) -> dict[str, Tensor]:
        """A model's tensors under their published names, as views of the model's own.

        What a part keeps for training alone (`training_state`) is left out.

        Raises:
            CheckpointError: tensors that the table has no name for, all listed.
        """
        state = model.state_dict()
        for name in training_state(model):
            del state[name]
        if self.part is not None:
            state = {name: tensor for name, tensor in state.items() if name.startswith(f"{self.part}.")}
        if self.without is not None:
            state = {name: tensor for name, tensor in state.items() if not name.startswith(f"{self.without}.")}
        try:
            return self.naming.save(state)
        except CheckpointError as error:
            raise type(error)(f"naming={self.naming.name} cannot express this model: {error}") from error


def training_state(model: nn.Module) -> list[str]:
    """Names of the tensors that parts of a model keep for training alone, averages of a codebook say."""
    return [
        f"{place}.{name}" if place else name
        for place, part in model.named_modules()
        for name in getattr(part, "training_state", ())
    ]


def _vocabulary(node: Node, folder: Path) -> None:
    """The two files of Emu3's tokenizer."""
    texts = (node.get("processor") or {}).get("texts")
    if not texts:
        return
    try:
        ranks = build(texts, path="model.processor.texts").vocabulary.ranks()
    except (FileNotFoundError, ValueError) as error:
        log.warning("%s is not written: %s", RANKS_FILE, error)
        return
    (folder / RANKS_FILE).write_text(ranks_text(ranks))
    visual = (f"<|visual token {code:06d}|>" for code in range(texts["codebook_size"]))
    (folder / VISION_FILE).write_text("".join(f"{word}\n" for word in (*SPECIAL[-3:], *visual)))


def _transform(node: Node, folder: Path) -> None:
    """The configuration of Emu3's picture transform."""
    config = emu3_write.preprocessor_config(node)
    if config is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _both(node: Node, folder: Path) -> None:
    _vocabulary(node, folder)
    _transform(node, folder)


def _eve_files(node: Node, folder: Path) -> None:
    """The preprocessor's configuration and the tokenizer's files of EVE."""
    images = eve_write.preprocessor_config(node)
    if images is not None:
        (folder / PREPROCESSOR).write_text(json.dumps(images, indent=2) + "\n")
    texts = (node.get("processor") or {}).get("texts")
    if not texts:
        return
    if texts.get("type") != "qwen2_tokenizer":
        rewritten(texts, "carry", folder)
        return
    try:
        ranks = build(texts["vocabulary"], path="model.processor.texts.vocabulary").ranks()
    except (FileNotFoundError, ValueError) as error:
        log.warning("%s is not written: %s", RANKS, error)
        return
    (folder / RANKS).write_text(ranks_text(ranks))
    (folder / WORDS).write_text(json.dumps(words_config(texts), indent=2) + "\n")


def _emu_words(node: Node, folder: Path) -> None:
    """The file of LLaMA's pieces, which Emu's tokenizers read."""
    texts = (node.get("processor") or {}).get("texts")
    if texts:
        rewritten(texts, "carry", folder)


def _words_files(node: Node, folder: Path) -> None:
    """The tokenizer of a model of texts alone, as transformers reads it where that is possible."""
    texts = (node.get("processor") or {}).get("texts")
    if not texts:
        return
    if texts.get("type") == "gguf_tokenizer":
        try:
            build(texts, path="model.processor.texts").write_transformers(folder)
        except FileNotFoundError as error:
            log.warning("tokenizer.json is not written: %s", error)
        return
    rewritten(texts, "carry", folder)


def _scheduler(node: Node, folder: Path) -> None:
    """The scheduler's folder, beside that of the network."""
    place = folder.parent / "scheduler"
    place.mkdir(exist_ok=True)
    config = emu_write.scheduler_config(node["visual_decoder"]["scheduler"])
    (place / "scheduler_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _drawing(name: str, naming: Naming, **facts: Any) -> Piece:
    """A folder of a visual decoder's part."""
    part = f"visual_decoder.{name}"
    return Piece(naming.under("", f"{part}."), part=part, own=True, folder=name, **facts)


_VISION, _DIFFUSION = "vision_tokenizer", "diffusion_pytorch_model"
_DRAWING = (
    _drawing("unet", diffusion.UNET, config=emu_write.diffusion_config, stem=_DIFFUSION, beside=_scheduler),
    _drawing("vae", diffusion.VAE, config=emu_write.diffusion_config, stem=_DIFFUSION),
    _drawing("safety_checker", diffusion.CHECKER, config=emu_write.checker_config),
)


def _emu_folders(naming: Naming, config: Callable[[Node], dict[str, Any]], config_name: str) -> tuple[Piece, ...]:
    """Folders of an Emu and of its visual decoder's parts."""
    body = Piece(naming, config, config_name, folder=BODY, beside=_emu_words, without="visual_decoder")
    return (body, *_DRAWING)


#: naming -> what is written under that name.
WRITERS: dict[str, tuple[Piece, ...]] = {
    **{
        naming.name: (Piece(naming, eva_clip_write.original_config, "eva_clip.json"),)
        for naming in (eva_clip.ORIGINAL, eva_clip.ROOT_TEXT, eva_clip.TEXT_SCALE)
    },
    eva_clip.HUB.name: (Piece(eva_clip.HUB, eva_clip_write.hub_config),),
    eva_clip.HUB_SCALED.name: (Piece(eva_clip.HUB_SCALED, eva_clip_write.hub_scaled_config),),
    **{
        naming.name: (Piece(naming, eva_clip_write.open_clip_config, "open_clip_config.json", "open_clip_model"),)
        for naming in (eva_clip.OPEN_CLIP_PACKED, eva_clip.OPEN_CLIP_SEPARATE)
    },
    **{naming.name: (Piece(naming, declip_write.original_config, "declip.json"),) for naming in declip.ALL},
    causal_decoder.LLAMA.name: (Piece(causal_decoder.LLAMA, decoder_config),),
    causal_decoder.LANGUAGE_MODEL.name: (
        Piece(causal_decoder.LANGUAGE_MODEL, language_model_config, part="decoder", beside=_words_files),
    ),
    emu3.EMU3.name: (  # published in two repositories; the second has its place inside the first
        Piece(emu3.EMU3, emu3_write.published_config, part="decoder", beside=_vocabulary),
        Piece(
            emu3.EMU3,
            emu3_write.vision_config,
            part=_VISION,
            own=True,
            folder=VISION_FOLDER,
            beside=_transform,
        ),
    ),
    **{
        naming.name: (Piece(naming, emu3_write.transformers_config, beside=_both),)
        for naming in (emu3.HF, emu3.TRANSFORMERS)
    },
    emu.EMU2.name: (Piece(emu.EMU2, emu_write.emu2_config, beside=_emu_words),),
    **{  # single files, whose readers know the sizes
        naming.name: (Piece(naming, emu_write.plain_node, SIZES, beside=_emu_words),)
        for naming in (emu.EMU, emu.EMU2_NATIVE, emu.EMU2_GEN)
    },
    **{
        naming.name: (Piece(naming, emu_write.adapted_node, SIZES, beside=_emu_words),)
        for naming in (emu.EMU_INSTRUCT, emu.EMU_INSTRUCT_NEW)
    },
    "emu_folders": _emu_folders(emu.EMU, emu_write.body_node, SIZES),
    "emu2_gen_folders": _emu_folders(emu.EMU2, emu_write.emu2_body_config, "config.json"),
    eve.EVE.name: (Piece(eve.EVE, eve_write.v1_config, beside=_eve_files),),
    eve.EVE_TRAINING.name: (Piece(eve.EVE_TRAINING, eve_write.v1_training_config, beside=_eve_files),),
    eve.EVE_V2.name: (Piece(eve.EVE_V2, eve_write.v2_config, beside=_eve_files),),
    eve.EVE_V2_STAGE0.name: (Piece(eve.EVE_V2_STAGE0, eve_write.v2_stage0_config, beside=_eve_files),),
    emu3_vision.EMU3_VISION.name: (Piece(emu3_vision.EMU3_VISION, emu3_write.vision_config, beside=_transform),),
}
