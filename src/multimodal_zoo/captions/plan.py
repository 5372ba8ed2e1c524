"""What fusing so many captions will cost: hours, devices' hours, money, bytes; and the memory of the model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from multimodal_zoo.captions.progress import in_time

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from multimodal_zoo.analysis.tables import Tables

#: What the authors state: 10,000 captions in about 20 minutes on 8 A100-40G (README of baaivision/CapsFusion).
REFERENCE_RATE = 10_000 / (20 * 60 * 8)
#: Bytes of a row of the published parquet files: 7.72 + 7.71 + 7.71 + 6.05 GB for 113 million rows.
PUBLISHED_BYTES = 258.0


@dataclass(frozen=True)
class Rate:
    """How fast one device fuses.

    Attributes:
        captions_per_second: rows of all stages together; None where nobody measured or said it.
        source: where the figure is from.
        bytes_per_row: of what is written.
        measured: False for an estimate from operations.
    """

    captions_per_second: float | None
    source: str
    bytes_per_row: float = PUBLISHED_BYTES
    measured: bool = True


@dataclass(frozen=True)
class Tokens:
    """Mean tokens of a row; by default those of the published prompt on the published samples, by SmolLM2's tokenizer.

    Attributes:
        prompt: of the filled prompt.
        prefix: those of its beginning that are the same in all rows, and computed once.
        answer: new ones.
        source: where the figures are from.
    """

    prompt: int = 138
    prefix: int = 99
    answer: int = 32
    source: str = "the published 10,000 samples"

    def __post_init__(self) -> None:
        if not 0 <= self.prefix <= self.prompt or self.answer < 1:
            raise ValueError(
                f"prefix_tokens={self.prefix}: expected at most prompt_tokens={self.prompt}, and answer_tokens="
                f"{self.answer} at least 1"
            )


@dataclass(frozen=True)
class ModelCosts:
    """What the engine's model takes.

    Attributes:
        name: of the decoder.
        parameters: its weights.
        weight_bytes: of them, two bytes each.
        cache_bytes: keys and values of one row at its longest, two bytes each.
        batch_size: rows at once.
        flops: operations of a caption with the shared prefix computed once, two per multiply-add.
        plain_flops: the same without.
    """

    name: str
    parameters: int
    weight_bytes: int
    cache_bytes: int
    batch_size: int
    flops: int
    plain_flops: int

    @property
    def memory(self) -> int:
        """Bytes of weights and caches; activations and the library's own come on top."""
        return self.weight_bytes + self.batch_size * self.cache_bytes


@dataclass(frozen=True)
class FusionPlan:
    """A run's cost.

    Attributes:
        rows: captions.
        rate: of one device.
        tokens: of a row.
        devices: at once.
        price_per_hour: of one device, in any currency.
        model: what the model takes, if one was named.
    """

    rows: int
    rate: Rate
    tokens: Tokens = Tokens()
    devices: int = 1
    price_per_hour: float = 0.0
    model: ModelCosts | None = None

    def __post_init__(self) -> None:
        for key, value in {"rows": self.rows, "devices": self.devices}.items():
            if value < 1:
                raise ValueError(f"{key}={value}: expected at least 1")
        if self.rate.captions_per_second is not None and self.rate.captions_per_second <= 0:
            raise ValueError(f"captions_per_second={self.rate.captions_per_second}: expected more than 0")

    @property
    def device_hours(self) -> float | None:
        """Hours of all devices together; None without a speed, like all that follows from it."""
        rate = self.rate.captions_per_second
        return None if rate is None else self.rows / rate / 3600

    @property
    def hours(self) -> float | None:
        """Hours until all is done."""
        return None if self.device_hours is None else self.device_hours / self.devices

    @property
    def money(self) -> float | None:
        """What the hours cost."""
        return None if self.device_hours is None else self.device_hours * self.price_per_hour

    @property
    def output_bytes(self) -> int:
        """Bytes that are written, pictures in tars not counted."""
        return round(self.rows * self.rate.bytes_per_row)

    @property
    def reference_hours(self) -> float:
        """A100 hours at the speed that the authors state."""
        return self.rows / REFERENCE_RATE / 3600

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        model = self.model and {**asdict(self.model), "memory_bytes": self.model.memory}
        return {
            "rows": self.rows,
            "rate": asdict(self.rate),
            "tokens": asdict(self.tokens),
            "devices": self.devices,
            "price_per_hour": self.price_per_hour,
            "hours": self.hours,
            "device_hours": self.device_hours,
            "money": self.money,
            "output_bytes": self.output_bytes,
            "model": model,
            "reference": {"captions_per_second": REFERENCE_RATE, "device_hours": self.reference_hours},
        }

    def tables(self) -> Tables:
        """(title, rows of label and value), in reading order."""
        from multimodal_zoo.analysis.tables import amount

        rows, told = self.rows, self.tokens
        tokens = [
            (f"prompt, mean of {told.source}", f"{told.prompt:,}"),
            ("of them the same in all rows", f"{told.prefix:,}"),
            ("answer", f"{told.answer:,}"),
            ("all rows: prompts and answers", f"{rows * told.prompt:.3g} and {rows * told.answer:.3g}"),
        ]
        found: Tables = [("tokens of a row", tokens), ("time", self._time())]
        found.append(("output", [("parquet, without pictures", amount(self.output_bytes))]))
        if self.model is not None:
            found.append(("model", self._model(self.model)))
        stated = [
            ("captions per second and A100", f"{REFERENCE_RATE:.3g}"),
            ("device hours at that speed", f"{self.reference_hours:,.0f}"),
        ]
        if self.device_hours is not None:
            ratio = self.reference_hours / self.device_hours
            stated.append(("its hours over these (devices may differ)", f"{ratio:,.3g}"))
        return [*found, ("as the authors state for LLaMA-2-13B on A100-40G", stated)]

    def _time(self) -> list[tuple[str, str]]:
        hours, device_hours, money = self.hours, self.device_hours, self.money
        if hours is None or device_hours is None:
            ways = "give captions_per_second=, run=FOLDER of a fused sample, or tflops= and model="
            return [("captions per second and device", self.rate.source), (ways, "")]
        kind = "measured" if self.rate.measured else "not measured"
        found = [
            (f"captions per second and device, {kind}: {self.rate.source}", f"{self.rate.captions_per_second:,.4g}"),
            (f"until all is done, {self.devices:,} device{'s' * (self.devices != 1)}", in_time(3600 * hours)),
            ("device hours", f"{device_hours:,.4g}"),
        ]
        if self.price_per_hour:
            found.append((f"money, at {self.price_per_hour:g} an hour", f"{money:,.0f}"))
        return found

    @staticmethod
    def _model(model: ModelCosts) -> list[tuple[str, str]]:
        from multimodal_zoo.analysis.tables import amount, gflop

        return [
            (f"{model.name}: parameters", f"{model.parameters:,}"),
            ("weights, float16 / bfloat16", amount(model.weight_bytes)),
            (f"keys and values of {model.batch_size:,} rows", amount(model.batch_size * model.cache_bytes)),
            ("together", amount(model.memory)),
            ("a caption, shared prefix once", gflop(model.flops)),
            ("a caption, whole prompt", gflop(model.plain_flops)),
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from multimodal_zoo.analysis.tables import terminal_table

        yield terminal_table(f"fuse {self.rows:,} captions", self.tables())
