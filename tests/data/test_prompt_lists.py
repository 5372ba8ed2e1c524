import pytest

from multimodal_zoo.data.prompt_lists import LISTS, fill, prompt_list
from multimodal_zoo.data.prompts import packaged_prompts


def test_lists_have_the_sizes_that_their_names_say():
    assert [len(prompt_list(name)) for name in ("simple", "prompt6", "prompt8", "prompt80")] == [1, 6, 8, 80]
    assert prompt_list("prompt80") == packaged_prompts("imagenet1k").templates
    assert set(LISTS["prompt8"][1:]) <= set(prompt_list("prompt80"))
    for name in LISTS:
        assert all(template.count("{c}") == 1 for template in prompt_list(name))


def test_an_unknown_list_is_named_with_the_nearest():
    with pytest.raises(KeyError, match=r"prompt7.*prompt[68]"):
        prompt_list("prompt7")


def test_names_are_put_in_as_they_are():
    assert fill(["a {c}", "the {}."], "T-shirt") == ["a T-shirt", "the T-shirt."]
