"""DeCLIP's evaluation: prompts of a class, and zero-shot classification by embeddings and by tokens."""

from __future__ import annotations

import hashlib
from typing import Any

from harness.cases import Case
from harness.run import Outcome, Pair, Request
from harness.words import take_known
from torch import Tensor
from torch.nn.functional import normalize

from multimodal_zoo.data.prompt_lists import fill, prompt_list
from multimodal_zoo.encoders.matching import GlobalMatching, Matching, TokenMatching
from multimodal_zoo.evaluation.class_vectors import normalised_means
from multimodal_zoo.nn.best_matches import Sequences, best_matches


def facts(lines: list[str]) -> dict[str, Any]:
    """What a case says of a class's prompts."""
    return {
        "count": len(lines),
        "first": lines[0],
        "last": lines[-1],
        "tenth": lines[9] if len(lines) > 9 else None,
        "sha256_of_lines": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    }


def prompts(case: Case) -> Outcome:
    """The field `expected`: list of prompts -> class name -> facts about its lines."""
    take_known(case.config, set(), "config")
    expected = case.fields["expected"]
    assert all(list(classes) == case.fields["class_names"] for classes in expected.values())
    return {
        f"{kind}, {name}": Pair(facts(fill(prompt_list(kind), name)), wanted)
        for kind, classes in expected.items()
        for name, wanted in classes.items()
    }


def classes_of(matching: Matching, case: Case, features: Tensor) -> Tensor:
    """Class vectors or matrices from features [class, prompt, ...]."""
    sizes = take_known(case.config, {"classes", "prompts"}, "config")
    assert features.shape[:2] == (sizes["classes"], sizes["prompts"])
    return normalised_means(matching, features.flatten(0, 1), [sizes["prompts"]] * sizes["classes"])


def by_embeddings(request: Request) -> Outcome:
    """Prediction and softmax of the cosine, without a temperature."""
    text, image = request.case.take(request.call)
    matching = GlobalMatching()
    scores = matching.image_scores(normalize(image, dim=-1), classes_of(matching, request.case, text))
    prediction, score = request.call.outputs
    return {prediction: scores.argmax(dim=1), score: scores.softmax(dim=1)}


def by_tokens(request: Request) -> Outcome:
    """The same by tokens: one direction alone and both at once, in blocks of several sizes."""
    text, image = request.case.take(request.call)
    matching = TokenMatching()
    classes, image = classes_of(matching, request.case, text), normalize(image, dim=-1)
    ways = [matching.image_scores(image, classes), matching.scores(image, classes)[0]]
    ways += [best_matches(Sequences(image), Sequences(classes), block_size) for block_size in (1, 500)]
    prediction, score = request.call.outputs
    return {
        prediction: tuple(scores.argmax(dim=1) for scores in ways),
        score: tuple(scores.softmax(dim=1) for scores in ways),
    }
