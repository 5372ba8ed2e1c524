from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs

from multimodal_zoo.data.pictures import from_array, load, open_picture, to_rgb
from multimodal_zoo.data.processor import ImageProcessor
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.transforms import ImageTransform

CAT = Path(photographs.__file__).parent / "chelsea.png"


@pytest.fixture(scope="module")
def cat() -> Image.Image:
    return Image.open(CAT).convert("RGB").resize((90, 60))


def reopened(image: Image.Image, suffix: str, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, suffix, **options)
    return open_picture(buffer.getvalue())


def error(image: Image.Image, expected: Image.Image) -> float:
    got = np.asarray(to_rgb(image), dtype=np.float32)
    return float(np.abs(got - np.asarray(expected.convert("RGB"), dtype=np.float32)).mean())


def test_grey(cat: Image.Image) -> None:
    grey = cat.convert("L")
    assert error(reopened(grey, "PNG"), grey) == 0
    assert error(reopened(grey.convert("LA"), "PNG"), grey) == 0
    assert error(reopened(cat.convert("1"), "PNG"), cat.convert("1")) == 0


def test_sixteen_bits(cat: Image.Image) -> None:
    grey = np.asarray(cat.convert("L")).astype(np.uint16)
    sixteen = reopened(Image.fromarray(grey * 257), "PNG")
    assert sixteen.mode.startswith("I")
    assert error(sixteen, cat.convert("L")) == 0
    floats = Image.fromarray((grey / 255).astype(np.float32))
    assert error(reopened(floats, "TIFF"), cat.convert("L")) <= 0.5


def test_cmyk(cat: Image.Image) -> None:
    assert error(reopened(cat.convert("CMYK"), "JPEG", quality=98), cat) < 3


def test_alpha_is_composited_on_white(cat: Image.Image) -> None:
    alpha = np.zeros((60, 90), np.uint8)
    alpha[:, 45:] = 255
    rgba = np.dstack([np.asarray(cat), alpha])
    got = np.asarray(to_rgb(reopened(from_array(rgba), "PNG")))
    assert (got[:, :45] == 255).all()
    np.testing.assert_array_equal(got[:, 45:], np.asarray(cat)[:, 45:])


def test_palette_with_transparency() -> None:
    palette = Image.new("P", (4, 2), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((0, 0), 1)
    got = np.asarray(to_rgb(reopened(palette, "PNG", transparency=0)))
    assert got[0, 0].tolist() == [200, 100, 50]
    assert (got[1] == 255).all()
    keyed = Image.new("RGB", (2, 2), (9, 9, 9))
    assert (np.asarray(to_rgb(reopened(keyed, "PNG", transparency=(9, 9, 9)))) == 255).all()


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_exif_orientation(cat: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turns = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180}
    turns |= {6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}
    turned = reopened(cat, "PNG", exif=exif)
    assert error(turned, cat.transpose(turns[orientation])) == 0
    buffer = io.BytesIO()
    cat.save(buffer, "PNG", exif=exif)
    stored = open_picture(buffer.getvalue(), turn=False)
    assert error(stored, cat) == 0
    assert open_picture(stored) is stored  # a transform does not turn what a reader left as it is
    for image in (turned, stored):
        assert open_picture(pickle.loads(pickle.dumps(image))).size == image.size


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_an_opened_picture_is_turned_like_its_file(cat: Image.Image, tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"x.{suffix}"
    cat.save(path, exif=exif)
    processor = ImageProcessor(ImageTransform(24, [0.5] * 3, [0.5] * 3))
    expected = processor.images([path])
    assert torch.equal(processor.images([Image.open(path)]), expected)
    read = Image.open(path)
    read.load()
    assert torch.equal(processor.images([read]), expected)
    assert torch.equal(processor.images([path.read_bytes()]), expected)
    unturned = ImageProcessor(ImageTransform(24, [0.5] * 3, [0.5] * 3)).images([cat])
    assert (expected - unturned).abs().mean() > 0.05


def test_broken_files(tmp_path: Path, cat: Image.Image) -> None:
    buffer = io.BytesIO()
    cat.save(buffer, "JPEG")
    with pytest.raises(UnusableError, match=r"broken image: cut"):
        load(open_picture(buffer.getvalue()[:900], "cut"), "cut")
    with pytest.raises(UnusableError, match=r"broken image: text"):
        open_picture(b"not an image", "text")
    with pytest.raises(UnusableError, match=r"missing image file"):
        open_picture(tmp_path / "absent.png")


def test_pictures_without_pixels_are_refused(tmp_path: Path) -> None:
    transform = ImageTransform(16, (0.5,) * 3, (0.5,) * 3)
    for size in ((0, 5), (5, 0), (0, 0)):
        with pytest.raises(UnusableError, match=f"empty image: .*{size[0]} x {size[1]} pixels"):
            transform([Image.new("RGB", size)])
    with pytest.raises(ValueError, match=r"got uint8 \(0, 4, 3\)"):
        transform([np.zeros((0, 4, 3), np.uint8)])
    with pytest.raises(UnusableError, match=r"broken image"):
        transform([b""])
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(UnusableError, match=r"broken image: .*empty\.png"):
        transform([tmp_path / "empty.png"])


def files(folder: Path, cat: Image.Image) -> dict[str, tuple[Path, Image.Image, float]]:
    """Real files of every kind: path, the picture that must come out, and how far its grey levels may be off."""
    grey, alpha = cat.convert("L"), Image.linear_gradient("L").resize(cat.size)
    exif = Image.Exif()
    exif[0x0112] = 6
    opaque = cat.convert("RGBA")
    on_white = Image.alpha_composite(Image.new("RGBA", cat.size, "white"), Image.merge("RGBA", (*cat.split(), alpha)))
    grey_on_white = Image.composite(grey, Image.new("L", cat.size, 255), alpha)
    kinds: dict[str, tuple[Image.Image, dict, Image.Image, float]] = {
        "grey.png": (grey, {}, grey, 0),
        "grey.jpg": (grey, {"quality": 98}, grey, 2),
        "sixteen.png": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), {}, grey, 0),
        "sixteen.tiff": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), {}, grey, 0),
        "cmyk.jpg": (cat.convert("CMYK"), {"quality": 98}, cat, 3),
        "cmyk.tiff": (cat.convert("CMYK"), {}, cat, 1),
        "palette.png": (cat.quantize(64), {}, cat.quantize(64).convert("RGB"), 0),
        "palette.gif": (cat.quantize(64), {}, cat.quantize(64).convert("RGB"), 0),
        "alpha.png": (Image.merge("RGBA", (*cat.split(), alpha)), {}, on_white, 1),
        "alpha.webp": (Image.merge("RGBA", (*cat.split(), alpha)), {"lossless": True, "exact": True}, on_white, 1),
        "opaque.png": (opaque, {}, cat, 0),
        "la.png": (Image.merge("LA", (grey, alpha)), {}, grey_on_white, 1),
        "turned.jpg": (cat, {"quality": 98, "exif": exif}, cat.transpose(Image.Transpose.ROTATE_270), 3),
        "bilevel.png": (cat.convert("1"), {}, cat.convert("1"), 0),
    }
    for name, (image, options, _, _) in kinds.items():
        image.save(folder / name, **options)
    return {name: (folder / name, expected, limit) for name, (_, _, expected, limit) in kinds.items()}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # PIL holds GIFs open for more frames
def test_real_files_of_every_kind_come_out_right(tmp_path: Path, cat: Image.Image) -> None:
    for name, (path, expected, limit) in files(tmp_path, cat).items():
        opened = load(open_picture(path))
        assert opened.size == expected.size, name
        assert error(opened, expected) <= limit, name
        published = np.asarray(to_rgb(load(open_picture(path)), None), dtype=np.float32)
        if "alpha" not in name and name != "la.png":  # dropped alpha shows what it hid
            assert np.abs(published - np.asarray(expected.convert("RGB"), dtype=np.float32)).mean() <= limit, name
        for source in (path, str(path), path.read_bytes()):
            for background in ((255, 255, 255), None):
                pixels = ImageTransform(24, (0.5,) * 3, (0.5,) * 3, background=background).pixels(source)
                assert pixels.shape == (3, 24, 24), name


@pytest.mark.filterwarnings("ignore:Tag data larger than file")
@pytest.mark.parametrize("suffix", ["PNG", "JPEG", "WEBP", "GIF", "TIFF"])
def test_files_cut_off_anywhere_are_an_error_that_names_them(suffix: str, tmp_path: Path, cat: Image.Image) -> None:
    buffer = io.BytesIO()
    cat.save(buffer, suffix)
    whole = buffer.getvalue()
    for share in (0.02, 0.3, 0.9):
        path = tmp_path / f"cut{share}"
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UnusableError, match=r"broken image: .*cut0"):
            load(open_picture(path))


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (2, 3)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "CMYK", "I;16", "F"])
def test_tiny_and_narrow_pictures_of_every_mode(size: tuple[int, int], mode: str) -> None:
    for resize in ("shorter_crop", "squash", "pad"):
        for background in ((255, 255, 255), None):
            transform = ImageTransform(20, (0.5,) * 3, (0.5,) * 3, resize, background=background)
            assert transform([Image.new(mode, size)]).isfinite().all()


def test_huge_image_is_refused() -> None:
    header = io.BytesIO()
    Image.new("1", (1, 1)).save(header, "PNG")
    data = bytearray(header.getvalue())
    data[16:24] = (60000).to_bytes(4, "big") * 2  # width and height in the header chunk
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    with pytest.raises(UnusableError, match=r"broken image"):
        open_picture(bytes(data))


def test_arrays() -> None:
    with pytest.raises(ValueError, match=r"expected uint8"):
        from_array(np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(ValueError, match=r"float32"):
        from_array(np.zeros((4, 4, 3), np.float32))


@pytest.mark.parametrize("name", ["chelsea.png", "camera.png", "rocket.jpg", "horse.png", "logo.png", "retina.jpg"])
def test_every_kind_of_photograph_goes_through(name: str) -> None:
    transform = ImageTransform(32, (0.5,) * 3, (0.5,) * 3)
    images = transform([CAT.parent / name, CAT.parent / name])
    assert images.shape == (2, 3, 32, 32)
    assert -1 <= images.min() < images.max() <= 1
