import pytest
import torch

from multimodal_zoo.evaluation.class_vectors import ClassPrompts, DatasetPrompts
from multimodal_zoo.evaluation.workspace import Workspace, share


def vectors_of(calls):
    def compute(names):
        calls.append(list(names))
        return torch.tensor([[float(ord(name[0])), 1.0] for name in names])

    return compute


def test_every_name_is_computed_once(tmp_path):
    calls = []
    for _ in range(2):  # the second one reads the file of the first
        workspace = Workspace(tmp_path, "weights")
        found = workspace.class_vectors(["b", "a", "b"], ["{c}"], vectors_of(calls))
        assert found.tolist() == [[98, 1], [97, 1], [98, 1]]
        assert workspace.class_vectors(["a"], ["{c}"], vectors_of(calls)).tolist() == [[97, 1]]
    assert calls == [["b", "a"]]
    assert workspace.class_vectors(["c", "a"], ["{c}"], vectors_of(calls)).tolist() == [[99, 1], [97, 1]]
    assert calls[1:] == [["c"]]


def test_values_are_computed_once():
    calls, workspace = [], Workspace(None, "weights")
    for key in (("a", "b"), ("a", "b"), ("a",)):
        workspace.once(key, lambda key=key: calls.append(key))
    assert calls == [("a", "b"), ("a",)]


def test_other_templates_or_weights_are_other_vectors(tmp_path):
    calls = []
    Workspace(tmp_path, "weights").class_vectors(["a"], ["{c}"], vectors_of(calls))
    Workspace(tmp_path, "weights").class_vectors(["a"], ["one {c}"], vectors_of(calls))
    Workspace(tmp_path, "others").class_vectors(["a"], ["{c}"], vectors_of(calls))
    assert len(calls) == len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\x00" * 64])
def test_a_broken_file_is_computed_again(tmp_path, content, caplog):
    Workspace(tmp_path, "w").class_vectors(["a"], ["{c}"], vectors_of([]))
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    calls = []
    assert Workspace(tmp_path, "w").class_vectors(["a"], ["{c}"], vectors_of(calls)).tolist() == [[97, 1]]
    assert calls == [["a"]]
    assert "cannot be used again" in caplog.text
    Workspace(tmp_path, "w").class_vectors(["a"], ["{c}"], vectors_of(calls))
    assert calls == [["a"]]


def test_parts_share_vectors(model, processor, squares, cpu, tmp_path):
    dataset, workspace = squares(), Workspace(tmp_path, "w")
    first, second = DatasetPrompts(), ClassPrompts(dataset.classnames[::-1], dataset.templates)
    share(first, workspace)
    share(second, workspace)
    share(object(), workspace)  # takes none
    _, forward = first.vectors(model, processor, dataset, 8, cpu)
    count = len(model.shapes)
    _, backward = second.vectors(model, processor, None, 8, cpu)
    assert len(model.shapes) == count
    assert torch.equal(forward.flip(0), backward)
    _, alone = ClassPrompts(dataset.classnames, dataset.templates).vectors(model, processor, None, 8, cpu)
    torch.testing.assert_close(alone, forward)
    with pytest.raises(ValueError, match="got 0 and 1"):
        ClassPrompts([], ["{c}"]).vectors(model, processor, None, 8, cpu)
