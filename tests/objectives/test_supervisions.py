"""Methods composed of supervisions: what each reads, what the sum is, and what is refused before the first step."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

import multimodal_zoo as zoo
from multimodal_zoo.encoders.outputs import ImageFeatures
from multimodal_zoo.objectives.batch import ImageTextBatch, MultiViewBatch
from multimodal_zoo.objectives.contrastive import ContrastiveObjective
from multimodal_zoo.objectives.views import Needs, Views
from multimodal_zoo.registry import build

METHODS = ("clip", "slip", "filip", "declip", "defilip")
HEADS = ("simclr", "simsiam", "masked_words", "token_wise")
START, END = 4529, 4530
SMALL = [
    "model.heads.simclr.hidden=32",
    "model.heads.simclr.output=16",
    "model.heads.simsiam.hidden=32",
    "model.heads.simsiam.bottleneck=16",
    "model.heads.token_wise.embed_dim=24",
]


def model_with_heads(*heads: str, overrides: tuple[str, ...] = ()) -> Any:
    chosen = heads or HEADS
    sizes = [value for value in SMALL if value.split(".")[2] in chosen]
    return zoo.create("clip_tiny", overrides=[f"+head@model.heads.{h}={h}" for h in chosen] + sizes + list(overrides))


def objective_of(name: str, *overrides: str) -> Any:
    return build(zoo.compose(None, ["+model=clip_tiny", f"+objective={name}", *overrides]).objective, path="objective")


def texts(rows: int, longest: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(rows, longest, dtype=torch.long)
    for row in range(rows):
        words = int(torch.randint(1, longest - 1, (1,), generator=generator))
        ids[row, 0], ids[row, words + 1] = START, END
        ids[row, 1 : words + 1] = torch.randint(1, 4000, (words,), generator=generator)
    return ids


def batch(rows: int = 6, masked: bool = True, seed: int = 0) -> MultiViewBatch:
    generator = torch.Generator().manual_seed(seed)
    images = {name: torch.randn(rows, 3, 48, 48, generator=generator) for name in ("plain", "first", "second")}
    ids = {
        name: texts(rows, longest, seed + longest) for name, longest in (("plain", 9), ("masked", 9), ("augmented", 7))
    }
    labels = torch.full_like(ids["masked"], -100)
    if masked:
        labels[::2, 1] = ids["masked"][::2, 1]
    return MultiViewBatch(images, ids, {"masked": labels}, [str(i) for i in range(rows)], None)


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_the_weighted_sum_of_its_parts_and_reaches_every_trained_weight(method: str) -> None:
    model, objective = model_with_heads(), objective_of(method)
    objective.check(model)
    outputs = objective(model, batch())
    parts = sum(weight * outputs[name] for name, weight in objective.weights.items())
    assert_close(outputs["loss"].detach(), parts)
    outputs["loss"].backward()
    assert model.image.stages[0].entry.weight.grad is not None
    heads = {
        "clip": set(),
        "slip": {"simclr"},
        "filip": {"token_wise"},
        "declip": {"simsiam", "masked_words"},
        "defilip": {"simsiam", "masked_words", "token_wise"},
    }[method]
    for name, head in model.heads.items():
        trained = [parameter.grad is not None for parameter in head.parameters() if parameter.requires_grad]
        assert all(trained) if name in heads else not any(trained), name


def test_the_published_weights() -> None:
    assert objective_of("declip").weights == pytest.approx(
        {"multi_view": 0.4, "nearest_neighbour": 0.2, "simsiam": 0.2, "masked_words": 0.2}
    )
    assert sum(objective_of("defilip").weights.values()) == pytest.approx(1.2)


def test_clip_on_plain_pairs_is_the_contrastive_objective() -> None:
    model, views = model_with_heads("simsiam"), batch()
    pairs = ImageTextBatch(views.images["plain"], views.texts["plain"], views.keys, torch.tensor([0, 1, 0, 2, 3, -1]))
    ours, plain = objective_of("clip")(model, pairs), ContrastiveObjective()(model, pairs)
    assert_close(ours["loss"], plain["loss"])
    assert_close(ours["image_text/image_to_text_accuracy"], plain["image_to_text_accuracy"])


def test_a_sixth_method_from_overrides_alone() -> None:
    objective = objective_of("clip", "+supervision@objective.parts.simsiam=simsiam", "+objective.weights.simsiam=0.5")
    assert objective.image_views == ("plain", "first", "second")
    assert objective.text_views == ("plain",)
    outputs = objective(model_with_heads("simsiam"), batch())
    assert_close(outputs["loss"].detach(), outputs["image_text"] + 0.5 * outputs["simsiam"])


def test_a_part_can_be_left_out_and_a_weight_of_zero_only_logs() -> None:
    model = model_with_heads("masked_words")
    objective = objective_of(
        "declip",
        "objective.parts.simsiam=null",
        "objective.parts.nearest_neighbour=null",
        "objective.weights.masked_words=0",
    )
    assert list(objective.parts) == ["multi_view", "masked_words"]
    outputs = objective(model, batch())
    outputs["loss"].backward()
    assert outputs["masked_words"] > 5
    assert not model.heads.masked_words.weight.grad.any()


def test_each_view_is_encoded_once() -> None:
    model, objective, calls = model_with_heads(), objective_of("defilip"), []
    model.image.register_forward_hook(lambda *_: calls.append("image"))
    model.text.token_embedding.register_forward_hook(lambda *_: calls.append("text"))
    objective(model, batch())
    assert sorted(calls) == ["image", "image", "text", "text"]


def test_masked_words_computed_alone_are_those_of_the_whole_tower() -> None:
    torch.manual_seed(1)
    model, views = model_with_heads("masked_words").double(), batch()
    views.images = {name: view.double() for name, view in views.images.items()}
    needs = Needs(("first",), ("masked",), masked_words=("masked",))
    alone = Views(model, views, needs).text("masked")
    whole = Views(model, views, needs._replace(text_tokens=("masked",))).text("masked")
    assert alone.words.shape == (3, 128)
    assert_close(alone.words, whole.words)
    assert_close(alone.embedding, whole.embedding)
    gradients = [
        torch.autograd.grad(v.words.sum() + v.embedding.sum(), model.text.positions)[0] for v in (alone, whole)
    ]
    assert_close(*gradients)


def test_a_random_word_that_is_the_end_word_moves_the_pooled_place() -> None:
    model, views = model_with_heads("masked_words"), batch(rows=2)
    views.texts["masked"][0, 1] = END  # what the published masking may draw
    needs = Needs(("first",), ("masked",), masked_words=("masked",))
    found = Views(model, views, needs).text("masked")
    assert_close(found.pooled, model.text(views.texts["masked"]).pooled)
    assert_close(found.words, model.text(views.texts["masked"]).tokens[:1, 1])


def test_nothing_masked_gives_zero_and_no_nan() -> None:
    model, objective = model_with_heads(), objective_of("declip")
    outputs = objective(model, batch(masked=False))
    outputs["loss"].backward()
    assert outputs["masked_words"] == 0
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert model.heads.masked_words.weight.grad is not None  # data-parallel training needs it on every rank


def test_a_pair_alone_in_its_batch() -> None:
    model, objective = model_with_heads().eval(), objective_of("defilip")  # batch norm needs two rows to train
    outputs = objective(model, batch(rows=1))
    assert outputs["loss"].isfinite()
    assert outputs["multi_view"] == 0
    assert outputs["token_wise"].abs() < 1e-6


def test_simsiam_is_the_mean_of_two_cosines_without_gradient_to_the_targets() -> None:
    model, views = model_with_heads("simsiam"), batch()
    objective = objective_of("clip", "objective.parts.image_text=null", "+supervision@objective.parts.simsiam=simsiam",
                             "+objective.weights.simsiam=1.0")  # fmt: skip
    twin = copy.deepcopy(model)
    objective(model, views)["loss"].backward()
    e1, e2 = (twin.image_projection(twin.image(views.images[name]).pooled) for name in ("first", "second"))
    (z1, p1), (z2, p2) = twin.heads.simsiam(e1), twin.heads.simsiam(e2)
    z1, z2 = F.normalize(z1.detach()), F.normalize(z2.detach())
    (-((F.normalize(p1) * z2).sum(1) + (F.normalize(p2) * z1).sum(1)).mean() / 2).backward()
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), name
        if ours.grad is not None:
            assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-4)


def test_padding_can_be_left_out_of_token_matching() -> None:
    model, views = model_with_heads("token_wise"), batch()
    objective = objective_of(
        "filip", "objective.parts.token_wise.padding=false", "objective.parts.token_wise.top_k=null"
    )
    loss = objective(model, views)["loss"]
    views.texts["masked"] = F.pad(views.texts["masked"], (0, 5))
    views.labels["masked"] = F.pad(views.labels["masked"], (0, 5), value=-100)
    assert_close(objective(model, views)["loss"], loss)
    published = objective_of("filip", "objective.parts.token_wise.top_k=null")(model, views)["loss"]
    assert (published - loss).abs() > 1e-4


def test_the_queue_is_filled_while_training_only_and_travels_with_the_objective() -> None:
    model, objective = model_with_heads(), objective_of("declip", "objective.parts.nearest_neighbour.queue.size=20")
    queue = objective.parts["nearest_neighbour"].queue
    before = queue.entries.clone()
    objective.eval()(model, batch())
    assert torch.equal(queue.entries, before)
    objective.train()(model, batch())
    assert int(queue.pointer) == 12
    views = Views(model, batch(), Needs(("first",), ("augmented", "masked")))
    assert_close(queue.entries[:6], views.text("augmented").normalised.detach())
    assert_close(queue.entries[6:12], views.text("masked").normalised.detach())
    other = objective_of("declip", "objective.parts.nearest_neighbour.queue.size=20")
    other.load_state_dict(objective.state_dict())
    assert torch.equal(other.parts["nearest_neighbour"].queue.entries, queue.entries)
    first, second = (one.eval()(model.eval(), batch(seed=3)) for one in (objective, other))
    assert_close(first["nearest_neighbour"], second["nearest_neighbour"], atol=0, rtol=0)


def test_pairs_of_one_concept_are_no_negatives_of_each_other() -> None:
    model, views = model_with_heads(), batch()
    for method in ("slip", "filip", "declip"):
        objective = objective_of(method).eval()
        views.concepts = None
        apart = objective(model, views)
        views.concepts = torch.zeros(6, dtype=torch.long)
        together = objective(model, views)
        for name in {"image_text", "simclr", "token_wise", "multi_view", "nearest_neighbour"} & together.keys():
            assert together[name] < 1e-5 < apart[name], name


class NoTokens(nn.Module):
    """An image tower without patches."""

    def __init__(self, token_width: int | None) -> None:
        super().__init__()
        self.layer, self.width, self.token_width = nn.Linear(3, 192), 192, token_width

    def forward(self, images: Tensor) -> ImageFeatures:
        pooled = self.layer(images.mean((2, 3)))
        return ImageFeatures(pooled, pooled[:, None][:, :0], (0, 0))


def test_bad_input() -> None:
    with pytest.raises(
        ValueError, match=r"objective.parts.simsiam: needs model.heads.simsiam.*\+head@model.heads.simsiam"
    ):
        objective_of("declip").check(model_with_heads("masked_words"))
    with pytest.raises(ValueError, match=r"heads.simclr.width is 7.*set model.heads.simclr.width=192"):
        objective_of("slip").check(model_with_heads("simclr", overrides=("model.heads.simclr.width=7",)))
    with pytest.raises(ValueError, match=r"heads.masked_words.vocab_size is 99.*4531"):
        objective_of("declip", "objective.parts.simsiam=null").check(
            model_with_heads("masked_words", overrides=("model.heads.masked_words.vocab_size=99",))
        )
    with pytest.raises(ValueError, match=r"queue.width is 64.*set queue.width=256"):
        objective_of("declip", "objective.parts.nearest_neighbour.queue.width=64").check(model_with_heads())
    with pytest.raises(ValueError, match=r"queue.size is 4, smaller than the batch of 6"):
        objective_of("declip", "objective.parts.nearest_neighbour.queue.size=4")(model_with_heads(), batch())
    with pytest.raises(ValueError, match=r"weights has nothing for \['image_text'\]"):
        objective_of("clip", "objective.weights.image_text=null")
    with pytest.raises(ValueError, match=r"weights names \['simcrl'\]"):
        objective_of("clip", "+objective.weights.simcrl=1")
    with pytest.raises(ValueError, match=r"needs pairs \[image view, text view\]"):
        objective_of("declip", "objective.parts.multi_view.pairs=[[first]]")
    with pytest.raises(ValueError, match="top_k is 0"):
        objective_of("filip", "objective.parts.token_wise.top_k=0")


def test_views_that_the_data_does_not_give() -> None:
    model, views = model_with_heads(), batch()
    pairs = ImageTextBatch(views.images["plain"], views.texts["plain"], views.keys, None)
    with pytest.raises(ValueError, match="needs the image views first, second, the data gives plain"):
        objective_of("declip")(model, pairs)
    del views.texts["masked"], views.labels["masked"]
    with pytest.raises(ValueError, match="needs the text views masked, the data gives plain, augmented"):
        objective_of("filip")(model, views)
    views = batch()
    views.labels = {}
    with pytest.raises(ValueError, match="needs the masked text views masked, the data gives none"):
        objective_of("declip")(model, views)


@pytest.mark.parametrize("token_width", [None, 192])
def test_a_tower_without_tokens_is_refused(token_width: int | None) -> None:
    model, objective = model_with_heads("token_wise"), objective_of("filip")
    model.image = NoTokens(token_width)
    if token_width is None:
        with pytest.raises(ValueError, match="NoTokens gives no tokens; choose another"):
            objective.check(model)
    with pytest.raises(ValueError, match="NoTokens gives no tokens"):
        objective(model, batch())


def test_batches_of_views_move_and_refuse_what_does_not_fit() -> None:
    views = batch()
    assert len(views.to("meta")) == 6
    assert views.to("meta").texts["augmented"].is_meta
    with pytest.raises(ValueError, match="as many rows in every view"):
        MultiViewBatch({"plain": torch.zeros(2, 3, 4, 4)}, {"plain": torch.zeros(3, 5)}, {}, ["a", "b"], None)
    with pytest.raises(ValueError, match=r"labels.masked has shape \(2, 4\)"):
        MultiViewBatch(
            {"plain": torch.zeros(2, 3, 4, 4)}, {"masked": torch.zeros(2, 5)}, {"masked": torch.zeros(2, 4)}, ["a", "b"]
        )
    with pytest.raises(ValueError, match="needs views of both sides"):
        MultiViewBatch({}, {"plain": torch.zeros(2, 5)}, {}, ["a", "b"])
