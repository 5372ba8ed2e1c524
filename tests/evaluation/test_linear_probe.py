import numpy as np
import pytest
import torch

from multimodal_zoo.evaluation.linear_probe import LinearProbe, fit_logistic, held_out


def blobs(samples=120, classes=3, width=5):
    target = torch.arange(samples) % classes
    return torch.randn(classes, width)[target] + 0.8 * torch.randn(samples, width), target


@pytest.mark.parametrize("inverse_penalty", [0.01, 1.0, 100.0])
def test_optimum_is_scikit_learns(inverse_penalty):
    from sklearn.linear_model import LogisticRegression

    features, target = blobs()
    weight, bias = fit_logistic(features, target, 3, inverse_penalty)
    other = LogisticRegression(C=inverse_penalty, tol=1e-8, max_iter=5000).fit(features.numpy(), target.numpy())
    ours = torch.softmax(features @ weight.T + bias, dim=1).numpy()
    np.testing.assert_allclose(ours, other.predict_proba(features.numpy()), atol=2e-3)


def test_fit_inside_inference_mode():
    with torch.inference_mode():
        features, target = blobs()
        weight, _ = fit_logistic(features, target, 3, 1.0)
    assert weight.abs().sum() > 0


def test_held_out_keeps_values_together():
    metas = [{"concept": n // 2, "key": str(n)} for n in range(400)]
    aside = held_out(metas, "concept", 0.25)
    assert torch.equal(aside[::2], aside[1::2])
    assert 0.15 < aside.float().mean() < 0.35
    assert torch.equal(aside, held_out(metas, "concept", 0.25))


@pytest.mark.parametrize("features", ["pooled", "embedding"])
def test_evaluator_separates_colours(model, processor, squares, cpu, features):
    probe = LinearProbe(squares(shades=6), squares(shades=2, offset=3), "colour", features=features)
    result = probe(model, processor, cpu)
    assert result.metrics["top1"] > 0.9
    assert result.metrics["inverse_penalty"] in probe.inverse_penalties
    assert result.tables[0].title == "accuracy"
    numbered = LinearProbe(squares(shades=6), squares(shades=2, offset=3), "label", features=features)
    assert numbered(model, processor, cpu).metrics["top1"] == result.metrics["top1"]


def test_errors(model, processor, squares, cpu):
    with pytest.raises(ValueError, match="'tokens' is neither"):
        LinearProbe(squares(), squares(), "label", features="tokens")
    with pytest.raises(ValueError, match="validation_share"):
        LinearProbe(squares(), squares(), "label", validation_share=1.0)
    with pytest.raises(ValueError, match="positive"):
        LinearProbe(squares(), squares(), "label", inverse_penalties=[0.0])
    with pytest.raises(ValueError, match="one side empty"):
        LinearProbe(squares(), squares(), "label", split_by="missing", validation_share=1e-9)(model, processor, cpu)
    few = squares()
    few.items = [d for d in few.items if d.meta["colour"] != "red"]
    with pytest.raises(ValueError, match="values are no class: red"):
        LinearProbe(few, squares(), "colour")(model, processor, cpu)
