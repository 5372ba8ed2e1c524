"""`build`: children first, errors that say where and what is nearest."""

from __future__ import annotations

import pytest
from mmengine.registry import Registry
from omegaconf import OmegaConf
from torch import nn

from multimodal_zoo.registry import ENCODERS, KINDS, OBJECTIVES, build, find, require_fit, require_part


class Leaf:
    def __init__(self, width: int, depth: int = 1) -> None:
        assert depth > 0, f"depth {depth}"
        self.width, self.depth = width, depth


class Pair:
    def __init__(self, left: Leaf, right: list[Leaf] | None = None, extra: dict[str, int] | None = None) -> None:
        assert isinstance(left, Leaf), "children are built before their parent"
        self.left, self.right, self.extra = left, right, extra


@pytest.fixture(autouse=True)
def _parts() -> object:
    ENCODERS.register_module(name="test_leaf", module=Leaf)
    ENCODERS.register_module(name="test_pair", module=Pair)
    yield
    del ENCODERS.module_dict["test_leaf"], ENCODERS.module_dict["test_pair"]


def test_children_are_built_first_and_card_is_not_an_argument() -> None:
    leaf = {"type": "test_leaf", "width": 3}
    config = {"type": "test_pair", "left": leaf, "right": [leaf, leaf], "extra": {"type_of": 1}, "card": {"a": 1}}
    pair = build(OmegaConf.create(config))
    assert [r.width for r in pair.right] == [3, 3]
    assert pair.extra == {"type_of": 1}


def test_runtime_arguments_reach_the_outermost_part_only() -> None:
    assert build({"type": "test_leaf"}, width=5).width == 5


def test_an_unknown_name_gives_the_path_and_the_nearest_names() -> None:
    with pytest.raises(KeyError, match=r"model\.left: no component named 'test_leef'; closest: test_leaf \(encoder\)"):
        build({"type": "test_pair", "left": {"type": "test_leef"}}, path="model")


def test_an_unexpected_argument_gives_the_path_the_guess_and_what_is_accepted() -> None:
    with pytest.raises(
        TypeError, match=r"model\.left\.depht \(did you mean 'depth'\?\): 'test_leaf' .* takes width, depth"
    ):
        build({"type": "test_pair", "left": {"type": "test_leaf", "width": 1, "depht": 2}}, path="model")


def test_a_missing_argument_gives_the_path() -> None:
    with pytest.raises(
        TypeError, match=r"model: 'test_leaf': missing a required argument: 'width'; it takes width, depth"
    ):
        build({"type": "test_leaf"}, path="model")


def test_an_error_raised_by_a_part_says_where_it_was_built() -> None:
    with pytest.raises(AssertionError) as caught:
        build({"type": "test_pair", "left": {"type": "test_leaf", "width": 1, "depth": 0}}, path="model.image")
    assert "while building model.image.left (test_leaf)" in caught.value.__notes__


def test_a_value_of_another_kind_is_named() -> None:
    with pytest.raises(TypeError, match=r"^model\.left\.width is 'wide'; expected a whole number$"):
        build({"type": "test_pair", "left": {"type": "test_leaf", "width": "wide"}}, path="model")
    with pytest.raises(TypeError, match=r"^model\.left is 3; expected Leaf$"):
        build({"type": "test_pair", "left": 3}, path="model")


def test_nothing_is_built_while_values_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leaf, "__init__", lambda self, width, depth=1: pytest.fail("built"))
    monkeypatch.setattr(Leaf.__init__, "__annotations__", {"width": int})
    require_fit({"type": "test_pair", "left": {"type": "test_leaf", "width": 1}}, path="model")
    with pytest.raises(TypeError, match=r"model\.left: 'test_leaf': missing a required argument: 'width'"):
        require_fit({"type": "test_pair", "left": {"type": "test_leaf"}}, path="model")
    require_fit({"type": "test_leaf"}, later=("width",))
    with pytest.raises(ValueError, match=r"callbacks.mine: width alone name no part"):
        require_part({"width": 3}, path="callbacks.mine")


def test_names_are_snake_case_and_unique_over_all_kinds() -> None:
    with pytest.raises(KeyError, match="already names"):
        OBJECTIVES.register_module(name="test_leaf", module=Pair)
    with pytest.raises(KeyError, match="not snake_case"):
        OBJECTIVES.register_module(name="TestLeaf", module=Pair)
    assert "test_leaf" not in OBJECTIVES.module_dict
    assert all(isinstance(kind, Registry) for kind in KINDS)


def test_targets_outside_the_allowed_packages_are_refused() -> None:
    for target in ("os.system", "subprocess.check_output", "builtins.eval", "torchx.evil"):
        with pytest.raises(ValueError, match="is not allowed"):
            build({"_target_": target, "command": "true"})


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.hub.load",
        "torch.optim.optimizer.functools.partial",
        "lightning.pytorch.trainer.trainer.os.system",
        "multimodal_zoo.registry.import_module",
        "multimodal_zoo.data.export.tarfile.TarFile",
        "multimodal_zoo.checkpoints.scripted.pickle.Unpickler",
        "torch.nn.init.normal_",
    ],
)
def test_targets_that_lead_out_of_the_allowed_packages_are_refused(target: str) -> None:
    with pytest.raises(ValueError, match="is not allowed"):
        build({"_target_": target}, path="model")


def test_a_target_that_is_not_there_is_named() -> None:
    with pytest.raises(ImportError, match=r"optim._target_: 'torch.optim.NoSuch' cannot be imported"):
        build({"_target_": "torch.optim.NoSuch"}, path="optim")


def test_targets_of_torch_are_built() -> None:
    assert build({"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}).out_features == 3


def test_every_registered_part_names_its_parameters() -> None:
    """No part takes **kwargs: nothing that a YAML says may be dropped in silence."""
    import inspect

    with pytest.raises(KeyError):
        find("surely_no_such_part")  # imports every room
    for kind in KINDS:
        for name, part in kind.module_dict.items():
            kinds = {p.kind for p in inspect.signature(part).parameters.values()}
            assert inspect.Parameter.VAR_KEYWORD not in kinds, name


def test_a_decorator_and_an_entry_point_both_add_parts(tmp_path, monkeypatch) -> None:
    """A package that declares `multimodal_zoo.plugins` is imported on the first unknown name."""
    (tmp_path / "my_plugin.py").write_text(
        "from multimodal_zoo.registry import ENCODERS\n"
        "@ENCODERS.register_module(name='plugged_leaf')\n"
        "class Plugged:\n    def __init__(self, width: int) -> None:\n        self.width = width\n"
    )
    info = tmp_path / "my_plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[multimodal_zoo.plugins]\nmine = my_plugin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    from multimodal_zoo import registry

    registry.load_plugins.cache_clear()
    assert build({"type": "plugged_leaf", "width": 4}).width == 4
    del ENCODERS.module_dict["plugged_leaf"]


def test_what_cannot_be_built_is_told_with_plain_values_and_without_children() -> None:
    def refuse(image: nn.Module, width: int) -> None:
        raise ValueError("no image of this width")

    ENCODERS.register_module(name="test_refusing", module=refuse)
    try:
        with pytest.raises(ValueError, match=r"no image of this width\); model\.width=3$"):
            build({"type": "test_refusing", "image": {"_target_": "torch.nn.Identity"}, "width": 3}, path="model")
    finally:
        del ENCODERS.module_dict["test_refusing"]
