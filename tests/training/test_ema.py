"""The moving average, number by number."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from multimodal_zoo.training.ema import Ema, find_ema


class Recorder(Callback):
    """Weights after every step, and what validation and the average look like meanwhile."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []
        self.validated: list[dict[str, torch.Tensor]] = []

    def on_train_start(self, trainer, pl_module) -> None:
        self.weights.append({k: v.clone() for k, v in pl_module.model.state_dict().items()})

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.on_train_start(trainer, pl_module)

    def on_validation_epoch_start(self, trainer, pl_module) -> None:
        self.validated.append({k: v.clone() for k, v in pl_module.model.state_dict().items()})


def test_the_average_is_the_recurrence_and_is_what_is_validated(fit, batches) -> None:
    recorder = Recorder()
    from multimodal_zoo.training import assemble

    original = assemble.callbacks
    assemble.callbacks = lambda config: [*original(config), recorder]
    try:
        ema = {"_target_": "multimodal_zoo.training.ema.Ema", "decay": 0.5, "ramp": 10.0}
        trainer_node = {"max_steps": 12, "accumulate_grad_batches": 1}
        module, trainer = fit(callbacks={"ema": ema}, trainer=trainer_node, validation=batches(8, seed=1))
    finally:
        assemble.callbacks = original
    expected = {k: v.clone() for k, v in recorder.weights[0].items()}
    after = []
    for step, weights in enumerate(recorder.weights[1:]):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = {k: decay * expected[k] + (1 - decay) * v for k, v in weights.items()}
        after.append(expected)
    average = find_ema(trainer)
    assert average is not None
    assert average.updates == 12
    for name, tensor in average.average.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=1e-5)
    for epoch, seen in enumerate(recorder.validated):  # three steps to an epoch
        for name, tensor in seen.items():
            torch.testing.assert_close(tensor, after[3 * epoch + 2][name], atol=1e-6, rtol=1e-5)
    now = module.model.state_dict()
    assert all(torch.equal(now[k], v) for k, v in recorder.weights[-1].items())
    with average.applied(module):
        torch.testing.assert_close(module.model.text.weight.detach(), expected["text.weight"], atol=1e-6, rtol=1e-5)
    assert all(torch.equal(module.model.state_dict()[k], v) for k, v in recorder.weights[-1].items())


@pytest.mark.parametrize("values", [{"decay": 1.0}, {"decay": -0.1}, {"ramp": 0.5}])
def test_a_decay_that_cannot_be(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"callbacks\.ema"):
        Ema(**values)
