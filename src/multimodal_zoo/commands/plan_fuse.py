"""`mmzoo plan fuse rows=120e6 [option=value | override ...]`: what fusing so many captions costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from multimodal_zoo.commands.options import names, taken
from multimodal_zoo.commands.values import flag, number, whole

if TYPE_CHECKING:
    from multimodal_zoo.captions.plan import FusionPlan, ModelCosts, Rate, Tokens


@dataclass(frozen=True)
class Options:
    """What may stand behind `mmzoo plan fuse`, as words; with `data` every other word is an override of `mmzoo fuse`.

    Attributes:
        rows: captions, 120e6 say.
        captions_per_second: of one device, all stages together.
        run: instead of `captions_per_second`: a folder that `mmzoo fuse` has written, whose seconds count.
        tflops: instead of both: what a device can do, with `model`; an estimate.
        utilisation: the share of it that generation reaches; our choice.
        devices: how many work at once.
        price_per_hour: of one device.
        model: a file of conf/decoder, for memory and operations.
        batch_size: rows at once, for memory.
        data: one's own captions, to count tokens.
        sample: rows of them that are counted.
        prompt_tokens: of a prompt with its captions; the published prompt on the published samples if left out.
        prefix_tokens: of them those that all prompts begin with.
        answer_tokens: of a fused caption.
        json: whether plain numbers are printed.
    """

    rows: str = ""
    captions_per_second: str = ""
    run: str = ""
    tflops: str = ""
    utilisation: str = "0.3"
    devices: str = "1"
    price_per_hour: str = "0"
    model: str = ""
    batch_size: str = "32"
    data: str = ""
    sample: str = "1000"
    prompt_tokens: str = "138"
    prefix_tokens: str = "99"
    answer_tokens: str = "32"
    json: str = "false"


def main(words: Sequence[str]) -> int:
    """Print the plan; `json=true` prints plain numbers.

    Raises:
        ValueError: an option whose value does not fit, no rows, tokens given twice.
        FileNotFoundError: no such run or data.
        KeyError: an unknown model or override, with the nearest.
    """
    from rich.console import Console

    given, overrides = taken(words, names(Options))
    if overrides and not given.get("data"):
        raise ValueError(
            f"{overrides[0]}: overrides of mmzoo fuse only matter for tokens, with data=FOLDER; options are "
            f"{', '.join(names(Options))}"
        )
    as_json = flag("json", given.get("json", Options.json))
    found = fusion_plan(given, overrides)
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        Console().print(found)
    return 0


def fusion_plan(given: Mapping[str, str], overrides: Sequence[str] = ()) -> FusionPlan:
    """The plan that some words describe; see `main`."""
    from multimodal_zoo.captions.plan import FusionPlan

    options = replace(Options(), **given)
    if not options.rows:
        raise ValueError("mmzoo plan fuse needs rows=NUMBER, as in rows=120e6")
    tokens = _tokens(options, given, overrides)
    model = _model(options, tokens)
    return FusionPlan(
        rows=whole("rows", options.rows, 1),
        rate=_rate(options, model),
        tokens=tokens,
        devices=whole("devices", options.devices, 1),
        price_per_hour=number("price_per_hour", options.price_per_hour),
        model=model,
    )


def _rate(options: Options, model: ModelCosts | None) -> Rate:
    """A speed that the user gives or measured; none is made up."""
    from multimodal_zoo.captions.plan import Rate
    from multimodal_zoo.captions.plan_figures import estimated_rate, rate_of_run

    ways = [key for key in ("captions_per_second", "run", "tflops") if getattr(options, key)]
    if len(ways) > 1:
        raise ValueError(f"{' and '.join(ways)} are {len(ways)} speeds; give one")
    if not ways:
        return Rate(None, "not known")
    if ways[0] == "run":
        return rate_of_run(options.run)
    if ways[0] == "captions_per_second":
        return Rate(number("captions_per_second", options.captions_per_second), "as given", measured=False)
    if model is None:
        raise ValueError(f"tflops={options.tflops} needs model=DECODER, whose operations it is divided by")
    tflops, utilisation = number("tflops", options.tflops), number("utilisation", options.utilisation)
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation={options.utilisation}: expected a share above 0 and up to 1")
    return estimated_rate(model, tflops, utilisation)


def _tokens(options: Options, given: Mapping[str, str], overrides: Sequence[str]) -> Tokens:
    from multimodal_zoo.captions.plan import Tokens

    answer = whole("answer_tokens", options.answer_tokens, 1)
    stated = [key for key in ("prompt_tokens", "prefix_tokens") if key in given]
    if not options.data:
        prompt = whole("prompt_tokens", options.prompt_tokens, 1)
        prefix = whole("prefix_tokens", options.prefix_tokens, 1)
        return Tokens(prompt, prefix, answer, "what is given" if stated else Tokens().source)
    if stated:
        raise ValueError(f"{stated[0]} and data are two; give one")
    return _sampled(options.data, whole("sample", options.sample, 1), answer, overrides)


def _sampled(data: str, rows: int, answer: int, overrides: Sequence[str]) -> Tokens:
    """Tokens of one's own captions, in the prompt and by the engine that `mmzoo fuse` would take."""
    from multimodal_zoo.captions.plan_figures import sampled_tokens
    from multimodal_zoo.commands.fuse import job_of
    from multimodal_zoo.config import compose, quoted
    from multimodal_zoo.registry import build

    job = job_of(compose("base/fuse", [f"source.path={quoted(data)}", *overrides]))
    if job.engine is None:
        raise ValueError("fusion_engine=none asks no model: there are no tokens to count")
    engine = build(job.engine, path="fusion_engine")
    try:
        source, prompt = build(job.source, path="source"), build(job.prompt, path="fusion_prompt")
        return sampled_tokens(source, prompt, engine, rows, answer)
    finally:
        engine.close()


def _model(options: Options, tokens: Tokens) -> ModelCosts | None:
    from omegaconf import OmegaConf

    from multimodal_zoo.captions.plan_figures import model_costs
    from multimodal_zoo.catalogue import list_group, require
    from multimodal_zoo.config import compose

    if not options.model:
        return None
    name = require(options.model, list_group("decoder"), "decoder", "model")
    config: Any = OmegaConf.to_container(compose(None, [f"+decoder={name}"]), resolve=True)
    return model_costs(name, config, tokens, whole("batch_size", options.batch_size, 1))
