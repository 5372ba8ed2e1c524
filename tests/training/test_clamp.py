"""A clamped parameter stays inside of its bounds, before an average sees it."""

from __future__ import annotations

import pytest

from multimodal_zoo.training import assemble
from multimodal_zoo.training.clamp import Clamp
from multimodal_zoo.training.ema import Ema

NODE = {"_target_": "multimodal_zoo.training.clamp.Clamp", "name": "logit_scale", "lowest": 0.0, "highest": 2.01}


def test_the_temperature_stays_inside(fit) -> None:
    free, _ = fit(folder="free")
    end = float(free.model.logit_scale.detach())
    assert not 1.99 < end < 2.01
    up = end > 2.0
    bound = {"highest": 2.01} if up else {"lowest": 1.99, "highest": 9.0}
    clamped, _ = fit(folder="clamped", callbacks={"clamp": {**NODE, **bound}})
    assert float(clamped.model.logit_scale.detach()) == pytest.approx(2.01 if up else 1.99, abs=1e-6)


def test_the_first_backward_pass_sees_it_inside(fit) -> None:
    """Clamped before the gradient is computed and after the step, from which the first step starts."""
    optim = {"_target_": "torch.optim.SGD", "lr": 1e-3, "weight_decay": 0.0, "fused": False}
    changes = {"optim": optim, "schedule": {"_target_": "multimodal_zoo.training.schedule.Constant", "warmup": 0}}
    trainer = {"max_steps": 1, "gradient_clip_val": None}
    free, _ = fit(folder="free", trainer=trainer, **changes)
    moved = float(free.model.logit_scale.detach()) - 2.0
    bound = {**NODE, "name": ["logit_scale"], "lowest": 3.0, "highest": None}
    clamped, _ = fit(folder="clamped", trainer=trainer, callbacks={"clamp": bound}, **changes)
    assert float(clamped.model.logit_scale.detach()) == pytest.approx(max(3.0, 3.0 + moved), abs=1e-6)


def test_it_comes_before_the_average() -> None:
    ema = {"_target_": "multimodal_zoo.training.ema.Ema", "decay": 0.9, "ramp": 1.0}
    found = assemble.callbacks({"seed": 0, "callbacks": {"ema": ema, "clamp": NODE}})
    kinds = [type(callback) for callback in found]
    assert kinds.index(Clamp) < kinds.index(Ema)


def test_names_and_bounds_that_do_not_fit(fit) -> None:
    with pytest.raises(ValueError, match=r"lowest is 3.0, above highest, 2.01"):
        Clamp("logit_scale", 3.0, 2.01)
    with pytest.raises(ValueError, match=r"clamp names 'temperature', the model has .*, ..."):
        fit(callbacks={"clamp": {**NODE, "name": ["logit_scale", "temperature"]}})
    with pytest.raises(ValueError, match=r"clamp.name is an empty list"):
        Clamp([], None, None)
    assert Clamp("x", None, 3.0).lowest is None
