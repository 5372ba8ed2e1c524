"""Where the figures of a fusion plan come from: a run that was timed, one's own captions, a model's operations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal_zoo.captions.plan import PUBLISHED_BYTES, ModelCosts, Rate, Tokens
from multimodal_zoo.files import read_record

if TYPE_CHECKING:
    from multimodal_zoo.captions.engine import Engine
    from multimodal_zoo.captions.prompts import FusionPrompt
    from multimodal_zoo.captions.rows import CaptionRow
    from multimodal_zoo.captions.sources import Source

#: Rows of a sample's unit.
TOGETHER = 256


def rate_of_run(place: str | Path) -> Rate:
    """The speed of a worker, and the bytes of a row, of a folder that `mmzoo fuse` has written, or of its report.json.

    Raises:
        FileNotFoundError, ValueError: no such place, or no seconds were noted in it.
    """
    path = Path(place)
    if not path.exists():
        raise FileNotFoundError(f"run={place}: nothing is there; give a folder that mmzoo fuse has written")
    folder = path if path.is_dir() else path.parent
    speed, size = _noted(folder) if path.is_dir() else (read_record(path).get("speed") or {}, PUBLISHED_BYTES)
    if not speed.get("rows"):
        raise ValueError(f"run={place}: no unit was timed there; give a folder that mmzoo fuse has written")
    return Rate(speed["rows_per_worker_second"], f"a worker of {folder.name}{_engine(folder)}", size)


def _noted(folder: Path) -> tuple[Mapping[str, Any], float]:
    from multimodal_zoo.captions.speed import speed_of
    from multimodal_zoo.captions.unit_files import records

    rows = size = 0
    for record in records(folder):
        rows += record.rows
        size += sum(count for file, count in record.sizes.items() if file.startswith("parquet/"))
    return speed_of(folder), size / rows if rows else PUBLISHED_BYTES


def _engine(folder: Path) -> str:
    """Which engine a folder was written with; a dry run asks none."""
    path = folder / "manifest.engine.json"
    if not path.is_file():
        return ""
    facts = read_record(path).get("engine") or {}
    name = facts.get("engine", "")
    return " (a dry run: no model was asked)" if name == "echo_engine" else f" ({name})" if name else ""


def estimated_rate(model: ModelCosts, tflops: float, utilisation: float) -> Rate:
    """What a device could do that spends a share of its operations on the model.

    Args:
        model: the operations of a caption.
        tflops: 10^12 operations per second of the device at two-byte numbers.
        utilisation: the share; answers are written token by token, which is seldom above a third.
    """
    source = f"{tflops:g} TFLOP/s at {utilisation:.0%}"
    return Rate(tflops * 1e12 * utilisation / model.flops, source, measured=False)


def model_costs(name: str, config: Mapping[str, Any], tokens: Tokens, batch_size: int = 32) -> ModelCosts:
    """What a language model takes, by `analysis.decoder_plan`.

    Args:
        name: what the tables call it.
        config: `decoder: {...}`, a decoder of the library.
        tokens: of a row.
        batch_size: rows at once.

    Raises:
        ValueError: rows longer than the decoder's positions.
    """
    from torch import Tensor, nn

    from multimodal_zoo.analysis import decoder_plan
    from multimodal_zoo.zoo import build_model

    class Language(nn.Module):
        """A decoder that is called with ids."""

        def __init__(self, decoder: nn.Module) -> None:
            super().__init__()
            self.decoder = decoder

        def forward(self, ids: Tensor) -> Tensor:
            """Hidden states (batch, tokens, width)."""
            hidden: Tensor = self.decoder(ids)
            return hidden

    decoder = build_model(config["decoder"], device="meta").requires_grad_(False)
    length = tokens.prompt + tokens.answer
    found = decoder_plan(Language(decoder), name=name, context_length=length)
    head = tokens.answer * found.head_flops
    return ModelCosts(
        name=name,
        parameters=found.parameters,
        weight_bytes=2 * found.parameters,
        cache_bytes=length * found.cache["float16 / bfloat16"],
        batch_size=batch_size,
        flops=(length - tokens.prefix) * found.token_flops + head,
        plain_flops=length * found.token_flops + head,
    )


def sampled_tokens(source: Source, prompt: FusionPrompt, engine: Engine, rows: int, answer: int) -> Tokens:
    """Mean tokens of one's own captions in the prompt, as an engine counts them.

    Args:
        source: of captions; as many files of it are opened as the sample needs.
        prompt: what is filled, and shortened if it has a limit.
        engine: what counts.
        rows: of the sample, spread over the source; rows that cannot be fused are left out.
        answer: new tokens of a row, which nothing but a run can tell.

    Raises:
        ValueError: no row of the sample can be fused.
    """
    sample = [row for row in islice(_spread(source, rows), rows) if row.problem is None]
    if not sample:
        raise ValueError(f"data: none of the first {rows} rows can be fused")
    filled = [prompt.shorten(row.raw, row.synthetic, engine.count, engine.cut).prompt for row in sample]
    counts = engine.count(filled)
    prefix = engine.count([prompt.prefix])[0]
    mean = round(sum(counts) / len(counts))
    return Tokens(mean, min(prefix, mean), answer, f"{len(sample):,} rows of the data")


def _spread(source: Source, rows: int) -> Iterator[CaptionRow]:
    """Rows of units that lie equally far from each other."""
    units = [unit for unit in source.units(min(TOGETHER, rows)) if unit.problem is None]
    wanted = max(1, -(-rows // TOGETHER))
    for unit in units[:: max(1, len(units) // wanted)]:
        yield from source.read(unit)
