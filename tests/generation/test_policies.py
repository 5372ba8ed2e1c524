"""What may come: grids in their natural order, clips, given codes, prompts that have begun."""

from __future__ import annotations

import pytest
import torch

from multimodal_zoo.generation.policies import FREE, FreeText, allow, behind_last, picture_layout
from multimodal_zoo.tokenizers.emu3_ids import numbered_ids

IDS = numbered_ids(20, 16)
EOL, EOF, EOI, EOS, PAD = IDS.end_of_line, IDS.end_of_frame, IDS.image_end, IDS.eos, IDS.pad


@pytest.mark.parametrize(
    ("grid", "steps"),
    [
        ((2, 3), [FREE, FREE, FREE, EOL, FREE, FREE, FREE, EOL, EOF, EOI, EOS]),
        ((2, 2), [FREE, FREE, EOL, FREE, FREE, EOL, EOF, EOI, EOS]),
        ((3, 1), [FREE, EOL, FREE, EOL, FREE, EOL, EOF, EOI, EOS]),
        ((1, 1), [FREE, EOL, EOF, EOI, EOS]),
        ((2, 1, 2), [FREE, FREE, EOF, FREE, FREE, EOF, EOI, EOS]),
    ],
)
def test_steps_are_in_the_natural_order(grid, steps) -> None:
    layout = picture_layout(IDS, [grid])
    assert layout.forced.tolist() == [steps]
    assert layout.rows == IDS.visual
    assert layout.read == max(n for n, step in enumerate(steps) if step == FREE)
    assert [layout.at(n).draws for n in range(len(steps))] == [step == FREE for step in steps]
    assert layout.at(len(steps) + 3).forced.tolist() == [PAD]


def test_rows_of_a_batch_end_by_themselves() -> None:
    layout = picture_layout(IDS, [(1, 1), (2, 2)])
    assert layout.forced[0].tolist() == [FREE, EOL, EOF, EOI, EOS, PAD, PAD, PAD, PAD]
    assert layout.limit == 9
    assert layout.at(4).draws
    assert not layout.at(5).draws


def test_given_codes_are_not_drawn() -> None:
    first = IDS.visual_first
    layout = picture_layout(IDS, [(2, 2), (2, 2)], given=[torch.tensor([[3, 0]]), torch.tensor([[-1, 5], [15, -1]])])
    assert layout.forced[0, :6].tolist() == [first + 3, first, EOL, FREE, FREE, EOL]
    assert layout.forced[1, :6].tolist() == [FREE, first + 5, EOL, first + 15, FREE, EOL]
    clip = picture_layout(IDS, [(2, 1, 2)], given=[torch.tensor([[[7, 8]]])])
    assert clip.forced[0, :5].tolist() == [first + 7, first + 8, EOF, FREE, FREE]


def test_a_prompt_that_has_begun_goes_on() -> None:
    first = IDS.visual_first
    begun = torch.tensor([first + 1, first + 2, EOL, first])
    whole, rest = picture_layout(IDS, [(2, 2)]), picture_layout(IDS, [(2, 2)], begun=[begun])
    assert torch.equal(rest.forced, whole.forced[:, 4:])
    row = torch.tensor([IDS.bos, IDS.image_token, first, EOL, EOF, EOI, 3, IDS.image_token, first + 2])
    assert behind_last(row, IDS.image_token).tolist() == [first + 2]  # the picture before it does not count


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"grids": [(0, 3)]}, r"grid of \(0, 3\)"),
        ({"grids": [(3,)]}, r"expected \(rows, columns\)"),
        ({"grids": []}, "one for each prompt"),
        ({"grids": [(2, 2)], "given": [torch.tensor([[1, 2, 3]])]}, "no first rows"),
        ({"grids": [(2, 2)], "given": [torch.zeros(3, 2)]}, "no first rows"),
        ({"grids": [(2, 2)], "given": [torch.tensor([[1, 16]])]}, "run from 1 to 16; expected 0 to 15"),
        ({"grids": [(2, 2)], "given": [torch.tensor([[1, -2]])]}, "run from -2"),
        ({"grids": [(2, 2)], "begun": [torch.tensor([3])]}, "id 3 stands at place 0 .* a visual token"),
        (
            {"grids": [(2, 2)], "begun": [torch.tensor([IDS.visual_first] * 3)]},
            f"place 2 .* has id {EOL}",
        ),
        ({"grids": [(1, 1)], "begun": [torch.tensor([IDS.visual_first, EOL, EOF, EOI, EOS])]}, "takes 5"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, word) -> None:
    with pytest.raises(ValueError, match=word):
        picture_layout(IDS, **arguments)


def test_a_prompt_without_an_image_token_is_refused() -> None:
    with pytest.raises(ValueError, match=f"no image token .id {IDS.image_token}"):
        behind_last(torch.tensor([1, 2]), IDS.image_token)


def test_scores_of_what_cannot_come_are_forbidden() -> None:
    scores = torch.randn(2, 10)
    found = allow(scores, slice(3, 6), torch.tensor([FREE, 8]))
    assert found.isfinite().nonzero().tolist() == [[0, 3], [0, 4], [0, 5], [1, 8]]
    assert found[1, 8] == scores[1, 8]
    assert torch.equal(allow(scores, None, None), scores)


def test_free_text_needs_a_step() -> None:
    with pytest.raises(ValueError, match="max_new_tokens is 0"):
        FreeText(0, EOS, PAD)
