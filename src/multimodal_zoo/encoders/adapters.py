"""Other libraries' image models in an image-encoder slot: timm, open_clip, transformers.

Nothing is downloaded: weights are random, or come from a local file or folder. Each adapter states the width that the
rest of the model is built for, and refuses a backbone of another width.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from inspect import signature
from typing import Any

from torch import Tensor, get_default_device, nn

from multimodal_zoo.encoders.outputs import ImageFeatures
from multimodal_zoo.registry import ENCODERS

#: Entries of a folder's configuration that say nothing about the architecture, or are arguments of the adapter.
NOT_ARCHITECTURE = ("model_type", "image_size", "architectures", "dtype", "transformers_version", "_name_or_path")

#: Most tokens before the patches (class token, registers) that a backbone is taken to have.
MOST_PREFIX = 16
#: Families of timm that interpolate their positions to images of another size or shape.
RESIZING = ("vision_transformer", "eva")


def check_width(name: str, found: int, width: int) -> int:
    """Return the width if the backbone has it.

    Raises:
        ValueError: with the width to set.
    """
    if found != width:
        raise ValueError(f"image.width is {width}, but {name!r} has width {found}; set image.width={found}")
    return width


def split_grid(tokens: Tensor, images: Tensor, name: str, patch: int | None = None) -> tuple[Tensor, tuple[int, int]]:
    """Separate patch tokens from the tokens before them, for a backbone that does not report its grid.

    Args:
        tokens: `(batch, prefix + rows * columns, width)`.
        images: `(batch, 3, height, width)`.
        name: of the backbone, for the error.
        patch: side of its first patches, in pixels. Where it is not known, or later layers join patches, the grid has
            the aspect of the images and is the largest that the tokens can fill.

    Raises:
        ValueError: no such grid fits.
    """
    height, width = images.shape[-2:]
    rows = int(math.sqrt(tokens.shape[1] * height / width))
    grids = [(rows, round(rows * width / height))]
    if patch is not None:
        grids.insert(0, (height // patch, width // patch))
    for grid in grids:
        prefix = tokens.shape[1] - grid[0] * grid[1]
        if min(grid) >= 1 and 0 <= prefix <= MOST_PREFIX:
            return tokens[:, prefix:], grid
    raise ValueError(f"{name!r}: {tokens.shape[1]} tokens of {tuple(images.shape)} images form no grid")


@ENCODERS.register_module(name="timm_backbone")
class TimmBackbone(nn.Module):
    """Any timm model, transformer or convolutional; pooled as timm pools it for its classifier.

    Args:
        name: timm's name of the architecture.
        width: features of its last layer.
        image_size: side of the images, in pixels.
        pretrained_file: local weights in timm's naming, or None for random ones.
        drop_path: stochastic depth rate of the last block.
    """

    def __init__(
        self, name: str, width: int, image_size: int, pretrained_file: str | None = None, drop_path: float = 0.0
    ) -> None:
        import timm

        super().__init__()
        if not timm.is_model(name):
            near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:8])
            raise KeyError(f"image.name: timm has no model named {name!r}; some that it has: {near}")
        preset = timm.models.get_pretrained_cfg(name)
        sized: dict[str, Any] = {"img_size": image_size} if preset is not None and preset.fixed_input_size else {}
        if sized and timm.models.is_model_in_modules(name, RESIZING):
            sized["dynamic_img_size"] = True
        overlay = {"file": pretrained_file} if pretrained_file else None
        self.model = timm.create_model(
            name,
            pretrained=overlay is not None,
            pretrained_cfg_overlay=overlay,
            num_classes=0,
            drop_path_rate=drop_path,
            **sized,
        )
        pooled = getattr(self.model, "head_hidden_size", self.model.num_features)
        if pooled != self.model.num_features:
            raise ValueError(
                f"image.name: {name!r} pools {self.model.num_features} features to {pooled}; a backbone whose head "
                "widens the features does not fit this slot"
            )
        self.width, self.image_size, self.name = check_width(name, pooled, width), image_size, name

    @staticmethod
    def self_contained(node: Mapping[str, Any]) -> dict[str, Any]:
        """The node without `pretrained_file`, for weights that are saved with the whole model."""
        return {**node, "pretrained_file": None}

    def forward(self, images: Tensor) -> ImageFeatures:
        """Features of images `(batch, 3, height, width)`."""
        features = self.model.forward_features(images)
        pooled = self.model.forward_head(features, pre_logits=True)
        if features.dim() == 4:
            if str(getattr(self.model, "output_fmt", "NCHW")).endswith("NCHW"):
                features = features.permute(0, 2, 3, 1)
            grid = (features.shape[1], features.shape[2])
            return ImageFeatures(pooled, features.flatten(1, 2), grid)
        if hasattr(self.model, "patch_embed") and hasattr(self.model, "num_prefix_tokens"):
            rows, columns = self.model.patch_embed.dynamic_feat_size(images.shape[-2:])
            return ImageFeatures(pooled, features[:, self.model.num_prefix_tokens :], (rows, columns))
        tokens, grid = split_grid(features, images, self.name)
        return ImageFeatures(pooled, tokens, grid)


@ENCODERS.register_module(name="open_clip_tower")
class OpenClipTower(nn.Module):
    """The vision transformer of an open_clip model, before its projection.

    Args:
        name: open_clip's name of the whole model.
        width: width of its vision tower.
        image_size: side of the images, in pixels.
        pretrained_file: local weights of the whole model in open_clip's naming, or None for random ones.
    """

    def __init__(self, name: str, width: int, image_size: int, pretrained_file: str | None = None) -> None:
        import open_clip
        from open_clip.transformer import VisionTransformer

        super().__init__()
        if name not in open_clip.list_models():
            family = [other for other in open_clip.list_models() if other.split("-")[0] == name.split("-")[0]]
            raise KeyError(f"image.name: open_clip has no model named {name!r}; known: {', '.join(family[:12])}")
        place = get_default_device()  # it moves what it made to a device of its own choice otherwise
        whole = open_clip.create_model(name, pretrained=pretrained_file, force_image_size=image_size, device=place)
        tower = whole.visual
        if not isinstance(tower, VisionTransformer):
            raise ValueError(
                f"image.name: the image tower of {name!r} is a {type(tower).__name__}, not open_clip's own vision "
                "transformer; for a timm tower use type: timm_backbone"
            )
        tower.proj, tower.output_tokens = None, True  # the projection belongs to the dual encoder
        self.model = tower
        self.width = check_width(name, tower.ln_post.normalized_shape[0], width)
        self.image_size = image_size

    @staticmethod
    def self_contained(node: Mapping[str, Any]) -> dict[str, Any]:
        """The node without `pretrained_file`, for weights that are saved with the whole model."""
        return {**node, "pretrained_file": None}

    def forward(self, images: Tensor) -> ImageFeatures:
        """Features of images `(batch, 3, height, width)`; tokens as open_clip gives them."""
        pooled, tokens = self.model(images)
        rows, columns = self.model.grid_size
        return ImageFeatures(pooled, tokens, (rows, columns))


def folder_config(folder: str, family: str, slot: str, part: str) -> Any:
    """The configuration of one model in a local folder of transformers.

    Args:
        folder: holds config.json.
        family: the `model_type` that it must have.
        slot: `image` or `text`, for the error.
        part: where a configuration of several models keeps this one's, `vision_config` say.

    Raises:
        ValueError: another family, with the key to set.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    config = getattr(config, part, config)
    if config.model_type != family:
        raise ValueError(f"{slot}.family is {family!r}, but {folder} holds a {config.model_type!r}; set {slot}.family")
    return config


def without_folder(node: Mapping[str, Any], slot: str, part: str, arguments: Collection[str] = ()) -> dict[str, Any]:
    """A node without `pretrained_folder`; the architecture that the folder declares moves into its `options`.

    Args:
        node: of a model of transformers.
        slot: as in `folder_config`.
        part: as in `folder_config`.
        arguments: fields of the configuration that are arguments of the encoder itself.
    """
    folder = node.get("pretrained_folder")
    if folder is None:
        return dict(node)
    declared = folder_config(folder, node["family"], slot, part).to_diff_dict()
    kept = {key: value for key, value in declared.items() if key not in (*NOT_ARCHITECTURE, *arguments)}
    return {**node, "options": {**kept, **(node.get("options") or {})}, "pretrained_folder": None}


@ENCODERS.register_module(name="transformers_vision")
class TransformersVision(nn.Module):
    """A vision model of transformers (`clip_vision_model`, `dinov2`, `siglip_vision_model`, `vit`, `convnextv2`, ...).

    Pooled is the model's own pooled output, or its first token if it has none.

    Args:
        family: the `model_type` of its configuration; of its vision part where it has one.
        width: its `hidden_size`.
        image_size: side of the images, in pixels.
        options: further fields of its configuration (`patch_size`, `num_hidden_layers`, ...).
        pretrained_folder: local folder with config.json and weights, or None for random ones; `options` then override
            its configuration. Code that a folder brings along is never run.

    Raises:
        ValueError: a width or family that is not the folder's, with what to set.
    """

    def __init__(
        self,
        family: str,
        width: int,
        image_size: int,
        options: Mapping[str, Any] | None = None,
        pretrained_folder: str | None = None,
    ) -> None:
        from transformers import AutoConfig, AutoModel

        super().__init__()
        fields = {**(options or {}), "image_size": image_size}
        if pretrained_folder is None:
            config = AutoConfig.for_model(family, **fields)
            self.model = AutoModel.from_config(config, trust_remote_code=False)
        else:
            config = folder_config(pretrained_folder, family, "image", "vision_config")
            config.update(fields)
            self.model = AutoModel.from_pretrained(
                pretrained_folder, config=config, local_files_only=True, trust_remote_code=False
            )
        #: whether the model is asked to interpolate its positions to images of another size or shape
        self.asked = "interpolate_pos_encoding" in signature(self.model.forward).parameters
        side = getattr(config, "patch_size", None)
        self.patch = side if isinstance(side, int) else None
        sizes = getattr(config, "hidden_sizes", None)
        found = sizes[-1] if sizes else config.hidden_size
        self.width, self.image_size, self.family = check_width(family, found, width), image_size, family

    @staticmethod
    def self_contained(node: Mapping[str, Any]) -> dict[str, Any]:
        """The node without `pretrained_folder`; the architecture that the folder declares moves into `options`."""
        return without_folder(node, "image", "vision_config")

    def forward(self, images: Tensor) -> ImageFeatures:
        """Features of images `(batch, 3, height, width)`."""
        other = self.asked and images.shape[-2:] != (self.image_size, self.image_size)
        out = self.model(pixel_values=images, **({"interpolate_pos_encoding": True} if other else {}))
        last = out.last_hidden_state
        if last.dim() == 4:
            pooled = out.pooler_output if getattr(out, "pooler_output", None) is not None else last.mean((2, 3))
            return ImageFeatures(pooled.flatten(1), last.flatten(2).transpose(1, 2), (last.shape[2], last.shape[3]))
        pooled = getattr(out, "pooler_output", None)
        tokens, grid = split_grid(last, images, self.family, self.patch)
        return ImageFeatures(last[:, 0] if pooled is None else pooled, tokens, grid)
