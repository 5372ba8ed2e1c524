from __future__ import annotations

import io
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs
from torchvision.transforms import v2 as published
from torchvision.transforms.v2 import functional

from multimodal_zoo.catalogue import list_models
from multimodal_zoo.config import compose
from multimodal_zoo.data.processor import ImageTextProcessor, pad_ids
from multimodal_zoo.data.transforms import FixedCrop, ImageTransform, RandomResizedCrop
from multimodal_zoo.registry import build
from multimodal_zoo.tokenizers.clip_bpe import ClipTokenizer

FOLDER = Path(photographs.__file__).parent
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
NAMES = ["chelsea.png", "rocket.jpg", "camera.png", "coffee.png", "brick.png"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [64, 224, 97])
def test_shorter_crop_is_the_published_transform(name: str, size: int) -> None:
    image = Image.open(FOLDER / name)
    bicubic = published.InterpolationMode.BICUBIC
    steps = [published.Resize(size, bicubic), published.CenterCrop(size)]
    resized = published.Compose(steps)(image).convert("RGB")
    expected = functional.normalize(functional.to_dtype(functional.pil_to_tensor(resized), scale=True), MEAN, STD)
    torch.testing.assert_close(ImageTransform(size, MEAN, STD)([image])[0], expected, atol=1e-6, rtol=0)


def test_small_and_narrow_images() -> None:
    for shape in [(1, 1), (3, 400), (400, 3), (64, 64)]:
        image = Image.fromarray(np.full((*shape, 3), 128, np.uint8))
        for resize in ("shorter_crop", "squash", "pad"):
            assert ImageTransform(64, MEAN, STD, resize).pixels(image).shape == (3, 64, 64)


def test_squash_and_pad() -> None:
    image = Image.open(FOLDER / "rocket.jpg")
    assert image.width > image.height
    squashed = ImageTransform(64, MEAN, STD, "squash").pixels(image)
    expected = functional.pil_to_tensor(image.resize((64, 64), Image.Resampling.BICUBIC))
    torch.testing.assert_close(squashed, expected)
    padded = ImageTransform(64, MEAN, STD, "pad").pixels(image)
    height = round(64 * image.height / image.width)
    top = (64 - height) // 2
    assert not padded[:, :top].any()
    assert padded[:, top : top + height].float().mean() > 10


def test_transparent_pictures_are_resized_without_fringes() -> None:
    rgba = np.zeros((40, 40, 4), np.uint8)  # hidden colour black
    rgba[10:30, 10:30] = (255, 0, 0, 255)
    pixels = ImageTransform(16, MEAN, STD).pixels(rgba)
    assert pixels[0].min() == 255  # red on white: the red channel is full everywhere


def published_pixels(image: Image.Image, size: int, resize: str) -> torch.Tensor:
    """What torchvision and PIL do as EVA-CLIP's and CLIP's code calls them: RGB comes last, alpha is dropped."""
    bicubic = published.InterpolationMode.BICUBIC
    if resize == "shorter_crop":
        image = functional.center_crop(functional.resize(image, [size], bicubic), [size, size])
    elif resize == "squash":
        image = functional.resize(image, [size, size], bicubic)
    else:
        scale = size / max(image.size)
        high, wide = (round(side * scale) for side in reversed(image.size))
        image = functional.resize(image, [high, wide], bicubic)
        left, top = (size - wide) // 2, (size - high) // 2
        image = functional.pad(image, [left, top, size - wide - left, size - high - top], fill=0)
    return functional.pil_to_tensor(image.convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "CMYK", "P", "1", "YCbCr", "HSV"])
@pytest.mark.parametrize("resize", ["shorter_crop", "squash", "pad"])
def test_without_a_background_every_mode_is_the_published_one(mode: str, resize: str) -> None:
    random = np.random.default_rng(0)
    for height, width in [(50, 61), (32, 41), (90, 20), (19, 23)]:
        bands = len(Image.new(mode, (1, 1)).getbands())
        pixels = random.integers(0, 256, (height, width, bands), dtype=np.uint8)
        image = Image.frombytes("L" if mode == "1" else mode, (width, height), pixels.tobytes())
        image = image.convert("1") if mode == "1" else image
        found = ImageTransform(32, MEAN, STD, resize, background=None).pixels(image)
        torch.testing.assert_close(found, published_pixels(image, 32, resize), atol=0, rtol=0)


def test_the_background_shows_through_and_only_there() -> None:
    rgba = np.zeros((40, 40, 4), np.uint8)
    rgba[:, 20:] = (200, 0, 0, 255)
    rgba[:, :20, :3] = (0, 90, 0)  # hidden
    for background, shown in [((255, 255, 255), 255), ((0, 0, 255), 0), (None, 0)]:
        pixels = ImageTransform(40, MEAN, STD, background=background).pixels(rgba)
        assert pixels[0, 5, 5] == shown
        assert pixels[1, 5, 5] == (255 if shown else 90 if background is None else 0)
        assert pixels[:, 5, 35].tolist() == [200, 0, 0]
    for background in ([255, 255], [0, 0, 256], [0.5, 0, 0]):
        with pytest.raises(ValueError, match=r"images.background is .*from 0 to 255, or null"):
            ImageTransform(40, MEAN, STD, background=background)
    for part in (FixedCrop(40, background=(0, 0, 255)), RandomResizedCrop(40, (1, 1), (1, 1), background=(0, 0, 255))):
        assert part(rgba, Random(0))[:, 5, 5].tolist() == [0, 0, 255]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_hair_is_cropped_before_it_is_resized(mode: str) -> None:
    image = Image.open(FOLDER / "chelsea.png").crop((0, 100, 400, 108)).convert(mode)
    for hair in (image, image.transpose(Image.Transpose.ROTATE_90)):
        found = ImageTransform(32, MEAN, STD, background=None).pixels(hair).int()
        assert (found - published_pixels(hair, 32, "shorter_crop")).abs().max() <= 2  # PIL rounds between its passes
    line = Image.new("RGB", (65000, 1), (10, 20, 30))  # as a whole 32 x 2080000 pixels
    for resize in ("shorter_crop", "squash", "pad"):
        assert ImageTransform(224, MEAN, STD, resize).pixels(line).shape == (3, 224, 224)
    assert ImageTransform(224, MEAN, STD).pixels(line)[:, 100, 100].tolist() == [10, 20, 30]


def test_one_picture_is_no_list() -> None:
    transform = ImageTransform(8, MEAN, STD)
    for one in (
        str(FOLDER / "coffee.png"),
        FOLDER / "coffee.png",
        Image.new("RGB", (9, 9)),
        np.zeros((9, 9, 3), "uint8"),
    ):
        with pytest.raises(TypeError, match="expected a list of pictures, got one"):
            transform(one)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one picture"):
        transform([])


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"images.resize is 'stretch'; it must be one of shorter_crop, squash, pad"):
        ImageTransform(64, MEAN, STD, "stretch")
    with pytest.raises(ValueError, match=r"interpolation is 'cubic'"):
        RandomResizedCrop(64, interpolation="cubic")


def test_random_crop_boxes_are_in_range() -> None:
    crop = RandomResizedCrop(32, (0.3, 0.9), (0.75, 4 / 3))
    random = Random(0)
    for _ in range(200):
        left, top, right, bottom = crop.box(200, 150, random)
        assert 0 <= left < right <= 200
        assert 0 <= top < bottom <= 150
        assert 0.29 < (right - left) * (bottom - top) / 30000 < 0.91
        assert 0.74 < (right - left) / (bottom - top) < 1.35
    assert crop.box(1000, 10, random) == (493, 0, 506, 10)  # no draw fits: the widest centred part


def test_random_crop_is_crop_then_resize() -> None:
    image = Image.open(FOLDER / "chelsea.png")
    crop = RandomResizedCrop(48, (0.5, 0.8))
    box = crop.box(*image.size, Random(3))
    expected = image.crop(tuple(int(edge) for edge in box)).resize((48, 48), Image.Resampling.BICUBIC)
    torch.testing.assert_close(crop(image, Random(3)), functional.pil_to_tensor(expected))
    assert torch.equal(crop(image, Random(3)), crop(image, Random(3)))
    assert not torch.equal(crop(image, Random(3)), crop(image, Random(4)))


def test_reduced_decoding_shows_the_same_part() -> None:
    buffer = io.BytesIO()
    Image.open(FOLDER / "coffee.png").save(buffer, "JPEG", quality=95)
    crop = RandomResizedCrop(64, (0.4, 1.0))
    for seed in range(5):
        reduced = crop(Image.open(buffer), Random(seed)).float()
        whole = Image.open(buffer)
        whole.load()
        assert whole.size == (600, 400)
        assert (reduced - crop(whole, Random(seed)).float()).abs().mean() < 4


def test_fixed_crop_is_the_evaluation_resize() -> None:
    image = Image.open(FOLDER / "chelsea.png")
    torch.testing.assert_close(FixedCrop(40)(image, Random(0)), ImageTransform(40, MEAN, STD).pixels(image))


def test_processor(processor: ImageTextProcessor) -> None:
    ids = processor.texts(["ab", "abcd"])
    assert ids.tolist() == [[1, 100, 101, 2, 0, 0], [1, 100, 101, 102, 103, 2]]
    assert processor.texts("ab").shape == (1, 4)
    assert processor.images([FOLDER / "chelsea.png", np.zeros((8, 9, 3), np.uint8)]).shape == (2, 3, 16, 16)
    assert pad_ids([], 0).shape == (0, 0)


@pytest.mark.parametrize(
    "model",
    [n for n in (*list_models("clip_vit_*"), *list_models("eva_clip_*")) if "tiny" not in n and "yfcc" not in n],
)
def test_published_models_drop_alpha_as_published(model: str) -> None:
    images = compose(None, [f"+model={model}"]).model.processor.images
    assert (images.resize, images.interpolation, images.background) == ("shorter_crop", "bicubic", None)
    assert (tuple(images.mean), tuple(images.std)) == (MEAN, STD)


@pytest.mark.parametrize("model", [*list_models("*_yfcc"), *list_models("declip_88m_*")])
def test_the_benchmarks_models_are_evaluated_as_published(model: str) -> None:
    images = compose(None, [f"+model={model}"]).model.processor.images
    found = (images.size, images.resize, images.resized, images.interpolation, images.background)
    assert found == (224, "shorter_crop", 256, "bilinear", None)
    assert (tuple(images.mean), tuple(images.std)) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("shape", [(40, 52), (52, 40), (20, 20), (13, 60), (10, 500), (24, 24), (16, 16)])
def test_resizing_further_than_the_crop_is_a_resize_then_a_crop(shape: tuple[int, int]) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8))
    found = ImageTransform(16, [0] * 3, [1] * 3, interpolation="bilinear", resized=20).pixels(picture)
    whole = ImageTransform(20, [0] * 3, [1] * 3, interpolation="bilinear")
    assert torch.equal(found, whole.pixels(picture)[:, 2:18, 2:18]), "the crop of a crop, both centred"


def test_resizing_to_less_than_the_crop_is_refused() -> None:
    for values in ({"resized": 15}, {"resized": 20, "resize": "squash"}):
        with pytest.raises(ValueError, match=r"images\.resized is \d+ with resize .* expected at least 16"):
            ImageTransform(16, [0] * 3, [1] * 3, **values)


def test_transform_from_a_configuration() -> None:
    config = {"type": "image_transform", "size": 8, "mean": [0, 0, 0], "std": [1, 1, 1], "resize": "squash"}
    assert build(config)([np.full((4, 4), 255, np.uint8)]).eq(1).all()


def test_what_is_no_picture_and_no_text_is_said_to_be() -> None:
    processor = ImageTextProcessor(ImageTransform(8, [0.5] * 3, [0.5] * 3), ClipTokenizer(vocab_size=600))
    for images in (torch.zeros(2, 3, 9, 9, dtype=torch.uint8), [torch.zeros(3, 9, 9, dtype=torch.uint8)]):
        with pytest.raises(TypeError, match=r"got Tensor of torch\.uint8 \(3, 9, 9\); of a tensor .* take tensor"):
            processor.images(images)
    with pytest.raises(TypeError, match="texts: expected strings, got int 3 at place 1"):
        processor.texts(["a", 3])
    with pytest.raises(TypeError, match="texts: expected a string or a list of strings, got int"):
        processor.texts(3)
