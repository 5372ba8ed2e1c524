"""Linear probe: a logistic regression on frozen image features (CLIP, section 3.2 and appendix A.3)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize, one_hot

from multimodal_zoo.data.transforms import choose
from multimodal_zoo.encoders.matching import matching_of
from multimodal_zoo.evaluation import pictures
from multimodal_zoo.evaluation.result import Picture, Result, Table
from multimodal_zoo.evaluation.samples import Samples, attribution_of, describe, read
from multimodal_zoo.evaluation.zero_shot import accuracies, accuracy_table, class_numbers, class_table, confusion
from multimodal_zoo.registry import EVALUATORS


def fit_logistic(
    features: Tensor,
    target: Tensor,
    classes: int,
    inverse_penalty: float,
    iterations: int = 1000,
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression by L-BFGS, the optimum that scikit-learn's `LogisticRegression(C=...)` has.

    Minimises `C * sum(cross entropy) + |weight|^2 / 2`; the bias is free.

    Args:
        features: (samples, width).
        target: (samples,) class numbers.
        classes: number of classes.
        inverse_penalty: C; a small one regularises strongly.
        iterations: the most L-BFGS steps.
        start: weight and bias to start from (the optimum of a neighbouring C); None starts at zero.

    Returns:
        weight (classes, width) and bias (classes,).
    """
    with torch.inference_mode(False), torch.enable_grad():
        features, target = features.clone(), target.clone()
        zero = (features.new_zeros(classes, features.shape[1]), features.new_zeros(classes))
        weight, bias = (value.clone().requires_grad_() for value in start or zero)
        solver = torch.optim.LBFGS(
            [weight, bias],
            max_iter=iterations,
            history_size=20,
            tolerance_grad=1e-6,
            tolerance_change=1e-10,
            line_search_fn="strong_wolfe",
        )

        def objective() -> Tensor:
            """The regularised loss, its gradients set."""
            solver.zero_grad()
            penalty = weight.square().sum() / (2 * inverse_penalty * len(features))
            loss = cross_entropy(linear(features, weight, bias), target) + penalty
            loss.backward()
            return loss

        solver.step(objective)
    return weight.detach(), bias.detach()


def held_out(metas: Sequence[Any], split_by: str, share: float) -> Tensor:
    """Which training samples only choose the regularisation, by a hash of a metadata value: (samples,) bool.

    Samples of equal value (two styles of one concept, say) fall on the same side.
    """

    def place(number: int) -> float:
        """Where a document's hash falls between 0 and 1."""
        value = metas[number].get(split_by, number)
        return int(hashlib.sha256(f"mmzoo-probe-v1:{value}".encode()).hexdigest()[:8], 16) / 16**8

    return torch.tensor([place(number) < share for number in range(len(metas))])


@EVALUATORS.register_module(name="linear_probe")
class LinearProbe:
    """Logistic regression on frozen features, its regularisation chosen on a part of the training data.

    Args:
        train: image documents with a class.
        test: image documents with a class that occurs in `train`.
        label: the metadata key of the class.
        features: `pooled` (the image encoder's output, before the projection, as CLIP does it) or `embedding`. Of a
            model that compares tokens, whose pooled output was never trained, the mean of the image tower's tokens, or
            of the mapped and normalised ones.
        inverse_penalties: the values of C to choose from.
        validation_share: part of `train` that chooses C; afterwards the probe is fitted on all of it.
        split_by: the metadata key by which that part is drawn; documents of one value stay together.
        batch_size: images per forward pass.
        judged_by: `top1` or `mean_per_class`: the figure that chooses C and comes first.
    """

    def __init__(
        self,
        train: Any,
        test: Any,
        label: str,
        features: str = "pooled",
        inverse_penalties: Sequence[float] = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0),
        validation_share: float = 0.2,
        split_by: str = "key",
        batch_size: int = 64,
        judged_by: str = "top1",
    ) -> None:
        choose(judged_by, dict.fromkeys(("top1", "mean_per_class")), "judged_by")
        if features not in ("pooled", "embedding"):
            raise ValueError(f"features: {features!r} is neither 'pooled' nor 'embedding'")
        if not 0 < validation_share < 1:
            raise ValueError(f"validation_share: {validation_share} is not between 0 and 1")
        if not inverse_penalties or min(inverse_penalties) <= 0:
            raise ValueError(f"inverse_penalties: needs positive values, got {list(inverse_penalties)}")
        self.train = train
        self.test = test
        self.label = label
        self.features = features
        self.inverse_penalties = tuple(inverse_penalties)
        self.validation_share = validation_share
        self.split_by = split_by
        self.batch_size = batch_size
        self.judged_by = judged_by

    def __call__(self, model: nn.Module, processor: Any, device: torch.device) -> Result:
        """Evaluate a model.

        Raises:
            ValueError: an empty dataset, a test class that the training data lacks, features that are NaN.
        """
        train, test = (self._read(model, processor, dataset, device) for dataset in (self.train, self.test))
        labels = train.column(self.label, self.train)
        names = self._names(labels)
        target = class_numbers(labels, names, self.label).to(device)
        expected = class_numbers(test.column(self.label, self.test), names, self.label)
        features = train.images.to(device)
        chosen, sweep = self._choose(features, target, train, len(names))
        weight, bias = fit_logistic(features, target, len(names), chosen)
        logits = linear(test.images.to(device), weight, bias).cpu()
        metrics = accuracies(logits, expected)
        counts = confusion(logits.argmax(dim=1), expected, len(names))
        return Result(
            name="linear_probe",
            metrics={**metrics, "inverse_penalty": chosen},
            tables=[
                accuracy_table(metrics, len(expected), len(names)),
                class_table(counts, names),
                Table("choice of the regularisation on held-out training data", ("C", self.judged_by), sweep),
            ],
            figures={"confusion": Picture(pictures.confusion_matrix(counts, names), "Confusion matrix, rows: truth")},
            details={
                "images": len(expected),
                "train": describe(self.train),
                "test": describe(self.test),
                "features": self.features if matching_of(model).vectors else f"{self.features} (mean of tokens)",
                "width": features.shape[1],
                "attribution": [*dict.fromkeys(attribution_of(self.train) + attribution_of(self.test))],
            },
            headline=tuple(dict.fromkeys((self.judged_by, "top1", "mean_per_class"))),
        )

    def _read(self, model: nn.Module, processor: Any, dataset: Any, device: torch.device) -> Samples:
        matching = matching_of(model)

        def embedding(images: Tensor) -> Tensor:
            """One vector of what the model compares."""
            found = matching.encode_image(model, images)
            return found if matching.vectors else normalize(found, dim=-1).mean(dim=1)

        encode = partial(matching.readout, model) if self.features == "pooled" else embedding
        return read(model, processor, dataset, batch_size=self.batch_size, device=device, encode=encode)

    def _names(self, labels: Sequence[Any]) -> list[str]:
        if isinstance(labels[0], int):
            return list(getattr(self.train, "classnames", None) or map(str, range(max(labels) + 1)))
        return sorted(set(map(str, labels)))

    def _choose(
        self, features: Tensor, target: Tensor, train: Samples, classes: int
    ) -> tuple[float, list[tuple[float, float]]]:
        aside = held_out(train.metas, self.split_by, self.validation_share).to(features.device)
        if aside.all() or not aside.any():
            raise ValueError(
                f"validation_share: {self.validation_share} of {len(aside)} documents, split by {self.split_by!r}, "
                "leaves one side empty; give more data or another share"
            )
        sweep, fitted = [], None
        for inverse_penalty in sorted(self.inverse_penalties):
            fitted = fit_logistic(features[~aside], target[~aside], classes, inverse_penalty, start=fitted)
            predicted = linear(features[aside], *fitted).argmax(dim=1)
            found = one_hot(predicted, classes).float()
            sweep.append((inverse_penalty, accuracies(found, target[aside])[self.judged_by]))
        return max(sweep, key=lambda entry: (entry[1], -entry[0]))[0], sweep
