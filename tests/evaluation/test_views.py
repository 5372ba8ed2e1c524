import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from multimodal_zoo.data.documents import Document, Text, Video, pair
from multimodal_zoo.data.processor import ImageTextProcessor
from multimodal_zoo.data.transforms import ImageTransform
from multimodal_zoo.evaluation.class_vectors import ClassPrompts
from multimodal_zoo.evaluation.features import embed_images, grouped
from multimodal_zoo.evaluation.video import encode_video
from multimodal_zoo.evaluation.views import embed_views, read_views, resized
from multimodal_zoo.evaluation.zero_shot import ZeroShotClassification

BOTH = ["shorter_crop", "squash"]


def picture(seed, width, height):
    content = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(content)


@pytest.fixture
def real(processor):
    """A processor with a transform whose way of resizing can be chosen."""
    found = ImageTextProcessor(ImageTransform(6, (0.5, 0.4, 0.3), (0.3, 0.2, 0.4)), processor.tokenizer)
    found.texts = processor.texts
    return found


@pytest.fixture
def pictures():
    return [picture(n, *size) for n, size in enumerate([(9, 6), (8, 8), (6, 12), (6, 6), (7, 30)] * 3)]


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_both_transforms_equal_one_pass_each(model, real, pictures, cpu, batch_size):
    documents = [pair(image, "x", {"label": 0}) for image in pictures]
    views = read_views(model, real, documents, BOTH, batch_size=batch_size, device=cpu)
    for name in BOTH:
        alone = embed_images(model, pictures, resized(real, name).images, batch_size=7, device=cpu)
        torch.testing.assert_close(views[name].images, normalize(alone, dim=-1), atol=1e-6, rtol=1e-6)
    assert not torch.allclose(views["squash"].images, views["shorter_crop"].images)
    assert real.transform.resize == "shorter_crop"  # the model's own processor is as it was


def test_square_pictures_are_embedded_once(model, real, cpu):
    seen = []
    encode = model.encode_image
    model.encode_image = lambda images: seen.append(len(images)) or encode(images)
    transforms = {name: resized(real, name).transform for name in BOTH}
    views = embed_views(model, [[picture(n, 9, 9)] for n in range(10)], transforms, batch_size=64, device=cpu)
    assert sum(seen) == 10
    assert torch.equal(views["squash"], views["shorter_crop"])
    embed_views(model, [[picture(n, 9, 6)] for n in range(10)], transforms, batch_size=8, device=cpu)
    assert sum(seen) == 30
    assert max(seen) <= 10


def test_videos_are_the_mean_of_their_frames(model, real, cpu):
    videos = [[picture(10 * v + f, 9, 7) for f in range(count)] for v, count in enumerate([4, 4, 4])]
    documents = [Document([Video(frames, 10.0), Text("x")], {"label": 0}) for frames in videos]
    views = read_views(model, real, documents, BOTH, batch_size=5, device=cpu)
    model.eval()
    for name in BOTH:
        pixels = torch.stack([resized(real, name).images(frames) for frames in videos])
        with torch.no_grad():
            torch.testing.assert_close(views[name].images, encode_video(model, pixels), atol=1e-6, rtol=1e-6)


def test_encode_video(model):
    model.eval()
    frames = torch.rand(2, 3, 3, 6, 6)
    expected = torch.stack([normalize(model.encode_image(video), dim=-1).mean(0) for video in frames])
    torch.testing.assert_close(encode_video(model, frames), expected)
    one = encode_video(model, frames[:, :1])
    torch.testing.assert_close(one, model.encode_image(frames[:, 0]))
    with pytest.raises(ValueError, match=r"expected \(batch, frames, 3, height, width\), got \(3, 3, 6, 6\)"):
        encode_video(model, frames[0])
    with pytest.raises(ValueError, match=r"got \(2, 0, 3, 6, 6\)"):
        encode_video(model, frames[:, :0])


def test_batches_hold_about_as_many_pictures():
    groups = [[1] * 3, [1] * 3, [1] * 3, [1]]
    assert [len(batch) for batch in grouped(groups, 6)] == [2, 2]
    assert [len(batch) for batch in grouped(groups, 1)] == [1] * 4


def test_classification_reports_both_and_takes_the_better(model, real, cpu, squares):
    documents = [pair(picture(n, 12, 6), "x", {"label": n % 8}) for n in range(24)]
    names = list(squares().classnames)

    def evaluate(resizes, judged_by="top1"):
        part = ZeroShotClassification(documents, ClassPrompts(names, ["{c}"]), "label", 5, resizes, judged_by)
        return part(model, real, cpu)

    both = evaluate(BOTH)
    crop, squash = evaluate(["shorter_crop"]), evaluate(["squash"])
    plain = evaluate(None)
    for name in ("top1", "top5", "mean_per_class"):
        assert both.metrics[f"shorter_crop_{name}"] == crop.metrics[name] == plain.metrics[name]
        assert both.metrics[f"squash_{name}"] == squash.metrics[name]
    best = max((crop, squash), key=lambda result: result.metrics["top1"])
    assert both.metrics["top1"] == best.metrics["top1"]
    assert both.details["resize"] == ("squash" if squash.metrics["top1"] > crop.metrics["top1"] else "shorter_crop")
    assert both.metrics["top1_top5"] == pytest.approx((both.metrics["top1"] + both.metrics["top5"]) / 2)
    assert evaluate(BOTH, "top1_top5").headline[0] == "top1_top5"
    assert "by image transform" in [table.title for table in both.tables]
    with pytest.raises(ValueError, match="judged_by is 'top3'; it must be one of top1"):
        evaluate(BOTH, "top3")


def test_another_resize_keeps_the_rest_of_the_transform(real):
    real.transform.background = None
    found = resized(real, "pad").transform
    assert (found.background, found.size, found.interpolation) == (None, real.transform.size, "bicubic")
    assert found.mean.equal(real.transform.mean)


def test_all_else_of_the_transform_stays(real):
    real.transform.background = (1, 2, 3)
    other = resized(real, "pad")
    kept = {key: value for key, value in vars(other.transform).items() if key != "resize"}
    assert kept == {key: value for key, value in vars(real.transform).items() if key != "resize"}
    assert (other.transform.resize, real.transform.resize) == ("pad", "shorter_crop")
    assert other.tokenizer is real.tokenizer
    clear = Image.new("RGBA", (6, 6), (9, 9, 9, 0))
    assert other.transform.pixels(clear)[:, 3, 3].tolist() == [1, 2, 3]


def test_errors(model, processor, real, cpu):
    with pytest.raises(TypeError, match="'squash' needs a processor with an image_transform"):
        resized(processor, "squash")
    with pytest.raises(ValueError, match=r"images.resize is 'stretch'; it must be one of shorter_crop"):
        resized(real, "stretch")
    with pytest.raises(ValueError, match="has no usable document"):
        read_views(model, real, [], BOTH, batch_size=2, device=cpu)
    with pytest.raises(ValueError, match="without a picture"):
        read_views(model, real, [Document([Text("x")], {})], BOTH, batch_size=2, device=cpu)
    broken = [pair(picture(0, 6, 6), "x", {})]
    model.colour.weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="1 of 1 image embeddings are NaN"):
        read_views(model, real, broken, BOTH, batch_size=2, device=cpu)
