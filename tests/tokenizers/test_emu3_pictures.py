"""Pictures and clips as ids, against the same written as strings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from multimodal_zoo.tokenizers.emu3_ids import numbered_ids
from multimodal_zoo.tokenizers.emu3_pictures import as_codes, clip_ids, picture_ids, read_clip, read_picture, spans

IDS = numbered_ids(300, 16)


def test_pictures_are_rows_with_line_ends() -> None:
    codes = torch.tensor([[0, 15, 3], [4, 5, 6]])
    first = IDS.visual_first
    assert picture_ids(codes, [50, 42, 51], IDS).tolist() == [
        IDS.image_start, 50, 42, 51, IDS.image_token,
        first, first + 15, first + 3, IDS.end_of_line,
        first + 4, first + 5, first + 6, IDS.end_of_line,
        IDS.end_of_frame, IDS.image_end,
    ]  # fmt: skip


def test_clips_have_frame_ends_and_no_line_ends() -> None:
    codes = torch.arange(12).view(2, 3, 2)
    ids = clip_ids(codes, [1], IDS).tolist()
    assert ids[:3] == [IDS.image_start, 1, IDS.image_token]
    assert ids[-1] == IDS.image_end
    assert [i for i, number in enumerate(ids) if number == IDS.end_of_frame] == [9, 16]
    assert IDS.end_of_line not in ids


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 2), (7, 3)])
def test_reading_is_the_inverse(shape: tuple[int, int]) -> None:
    codes = torch.randint(16, shape, generator=torch.Generator().manual_seed(0))
    ids = picture_ids(codes, [7, 8], IDS).tolist()
    assert torch.equal(read_picture(ids[1:-1], IDS), codes)
    clip = codes[None].repeat(3, 1, 1)
    assert torch.equal(read_clip(clip_ids(clip, [7], IDS).tolist()[1:-1], clip.shape, IDS), clip)


def test_ragged_pictures_are_refused() -> None:
    first = IDS.visual_first
    with pytest.raises(ValueError, match="2 rows has rows of 1, 2"):
        read_picture([first, first, IDS.end_of_line, first, IDS.end_of_line], IDS)
    with pytest.raises(ValueError, match="2 x 1 x 2 codes has 1 steps of 2"):
        read_clip([first, first, IDS.end_of_frame], [2, 1, 2], IDS)
    assert read_picture([7, 8], IDS) is None
    assert read_clip([7, 8], [1, 1, 1], IDS) is None


def test_spans_are_whole_pictures() -> None:
    begin, end = IDS.image_start, IDS.image_end
    assert list(spans([1, begin, 2, end, 3, begin, begin, end, end, begin, 4], IDS)) == [(1, 4), (5, 8)]


@pytest.mark.parametrize(
    ("codes", "what"),
    [
        (torch.zeros(2, 2, 2), "expected"),
        (torch.zeros(0, 3, dtype=torch.long), "none of them 0"),
        (torch.tensor([[0, 16]]), "from 0 to 16; the codebook has 0 to 15"),
        (np.array([[-1, 3]]), "from -1 to 3"),
    ],
)
def test_codes_are_checked(codes: torch.Tensor | np.ndarray, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        as_codes(codes, IDS, 2)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, np.uint8])
def test_codes_of_every_integer_type(dtype: type) -> None:
    codes = np.arange(6, dtype=dtype).reshape(2, 3)
    assert torch.equal(as_codes(codes[:, ::-1], IDS, 2), torch.arange(6).view(2, 3).flip(1))
