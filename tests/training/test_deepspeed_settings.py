"""DeepSpeed's settings as EVA-CLIP published them; nothing here runs DeepSpeed, which is no dependency."""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from typing import Any

import pytest
from lightning.pytorch.strategies import DeepSpeedStrategy
from omegaconf import OmegaConf

from multimodal_zoo.config import compose

#: Keys that DeepSpeed 0.19 documents (deepspeed.ai/docs/config-json), those of the sections that we use.
DOCUMENTED = {
    "": {"zero_allow_untested_optimizer", "zero_optimization", "data_types"},
    "data_types": {"grad_accum_dtype"},
    "zero_optimization": {
        "stage", "allgather_partitions", "allgather_bucket_size", "overlap_comm", "reduce_scatter",
        "reduce_bucket_size", "contiguous_gradients", "sub_group_size", "stage3_max_live_parameters",
        "stage3_max_reuse_distance", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold",
        "stage3_gather_16bit_weights_on_model_save",
    },
}  # fmt: skip
BUCKET, SMALL = 500_000_000, 50_000


def strategy(stage: int) -> dict[str, Any]:
    node = OmegaConf.to_container(compose(None, [f"+trainer=deepspeed_zero{stage}"]).trainer.strategy)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


@pytest.mark.parametrize("stage", [1, 3])
def test_settings_are_those_published(stage: int) -> None:
    node = strategy(stage)
    assert set(node) - {"_target_"} <= set(inspect.signature(DeepSpeedStrategy.__init__).parameters)
    scaler = [node[key] for key in ("loss_scale", "initial_scale_power", "loss_scale_window", "hysteresis")]
    assert [*scaler, node["min_loss_scale"]] == [0, 16, 1000, 2, 1]
    config = node["config"]
    for section, known in DOCUMENTED.items():
        assert set(config[section] if section else config) <= known
    assert config["data_types"] == {"grad_accum_dtype": "fp32"}
    zero = config["zero_optimization"]
    assert zero["stage"] == stage
    assert zero["reduce_bucket_size"] == (BUCKET if stage == 1 else SMALL)
    assert zero.get("allgather_bucket_size") == (BUCKET if stage == 1 else None)
    assert zero.get("stage3_max_live_parameters") == (None if stage == 1 else 100_000)


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs deepspeed")
@pytest.mark.parametrize("stage", [1, 3])
def test_deepspeed_itself_reads_them(stage: int) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    from multimodal_zoo.registry import build

    built = build(strategy(stage), path="trainer.strategy")
    read = DeepSpeedConfig({**built.config, "train_micro_batch_size_per_gpu": 2})
    assert (read.zero_config.stage, read.grad_accum_dtype) == (stage, "fp32")
