"""Emu3's prompts against the same written as strings; tests/parity has the published ids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from emu3_samples import CHAT, processor

from multimodal_zoo.tokenizers.emu3_ids import SPECIAL


def written(codes: torch.Tensor) -> str:
    """A picture as the published processor writes it."""
    rows = "".join("".join(f"<|visual token {c:06d}|>" for c in row) + "<|extra_200|>" for row in codes.tolist())
    high, wide = codes.shape
    return f"<|image start|>{high}*{wide}<|image token|>{rows}<|extra_201|><|image end|>"


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (12, 1), (1, 10)])
def test_pictures_are_what_their_strings_are(shape: tuple[int, int]) -> None:
    ours = processor()
    codes = torch.randint(16, shape, generator=torch.Generator().manual_seed(1))
    assert ours.image_ids(codes) == ours.text_ids(written(codes))
    assert ours.image_ids(codes.numpy()) == ours.image_ids(codes)


def test_prompts_are_what_their_strings_are() -> None:
    ours = processor()
    codes = [torch.arange(6).view(2, 3), torch.arange(2).view(2, 1)]
    pictures = "".join(written(one) for one in codes)
    question = ours.understanding_prompt("Which?", codes)
    assert question == ours.text_ids(f"<|extra_203|>{CHAT.format(image=pictures, text='Which?')}")
    assert ours.understanding_prompt("Which?") == ours.text_ids(f"<|extra_203|>{CHAT.format(image='', text='Which?')}")
    prompt = ours.generation_prompt("a kite", (4, 5))
    assert prompt == ours.text_ids("<|extra_203|>a kite<|image start|>4*5<|image token|>")


def test_the_template_decides_where_the_picture_stands() -> None:
    codes = torch.zeros(1, 2, dtype=torch.long)
    base = processor(understanding="{image}{text}")
    assert base.understanding_prompt("it", [codes]) == base.text_ids(f"<|extra_203|>{written(codes)}it")
    turned = processor(understanding="{text}: {image}!")
    assert turned.understanding_prompt("it", [codes]) == turned.text_ids(f"<|extra_203|>it: {written(codes)}!")
    assert turned.understanding_prompt("{image}", [codes]).count(turned.ids.image_start) == 1
    with pytest.raises(ValueError, match=r"processor\.understanding"):
        processor(understanding="{text}")


def test_special_strings_of_a_user_can_be_escaped() -> None:
    ours = processor()
    text = "<|image start|>1*1<|image token|><|extra_204|>"
    assert ours.ids.image_start in ours.understanding_prompt(text)
    assert ours.generation_prompt(text, (1, 1)).count(ours.ids.image_start) == 2
    escaped = ours.generation_prompt(text, (1, 1), special=False)
    assert escaped.count(ours.ids.image_start) == 1
    assert max(ours.understanding_prompt(text, special=False)[1:]) < ours.ids.pad


def test_pieces_are_the_inverse() -> None:
    ours = processor()
    codes = [torch.arange(6).view(2, 3), torch.arange(4).view(4, 1)]
    row = [ours.ids.bos, *ours.text_ids("a"), *ours.image_ids(codes[0]), *ours.image_ids(codes[1]), ours.ids.eos]
    first, one, two, last = ours.pieces(torch.tensor(row))
    assert (first, last) == ("<|extra_203|>a", "<|extra_204|>")
    assert torch.equal(one, codes[0])
    assert torch.equal(two, codes[1])
    assert ours.pieces(ours.text_ids("only text")) == ["only text"]
    assert ours.pieces([]) == []
    (text,) = ours.pieces(ours.image_ids(codes[0])[:-1])  # cut off before its end
    assert isinstance(text, str)
    assert text.startswith("<|image start|>2*3")
    with pytest.raises(ValueError, match="rows of 1, 2"):
        ours.pieces(
            ours.text_ids(written(torch.zeros(2, 2, dtype=torch.long)).replace("<|visual token 000000|>", "", 1))
        )


def test_clips_are_an_option_of_their_own() -> None:
    clip = torch.arange(12).view(2, 3, 2)
    with pytest.raises(ValueError, match=r"never published.*processor\.video=univla_video"):
        processor().image_ids(clip)
    ours = processor(video="univla_video")
    row = [ours.ids.bos, *ours.image_ids(clip), *ours.image_ids(clip[0])]
    assert row[1:9] == [ours.ids.image_start, *b"2*3*2", ours.ids.image_token, ours.ids.visual_first]
    begin, moving, still = ours.pieces(row)
    assert begin == "<|extra_203|>"
    assert torch.equal(moving, clip)
    assert torch.equal(still, clip[0])
    with pytest.raises(ValueError, match=r"processor\.video"):
        processor(video="emu3")


@pytest.mark.parametrize(
    ("ratio", "area", "what"),
    [
        ("4", None, "expected width:height"),
        ("4:0", None, "expected width:height"),
        ("-1:2", None, "expected width:height"),
        ("1:1", 0, "area is 0"),
        ("1:1", 15, "too few pixels"),
    ],
)
def test_impossible_grids_are_refused(ratio: str, area: int | None, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        processor().grid(ratio, area)


def test_grids() -> None:
    ours = processor()
    assert ours.grid("1:1") == (4, 4)
    assert ours.grid(" 5 : 1 ", 64 * 80) == (4, 20)
    assert ours.grid("20:1", 64 * 80) == (2, 40)  # the published grid has no limit, drawing has
    ours.check_ratio("1:5")
    for ratio in ("6:1", "1:6"):
        with pytest.raises(ValueError, match=rf"{ratio}; at most 5:1 or 1:5 \(processor\.images\.rule\.ratio"):
            ours.check_ratio(ratio)


def test_codes_outside_of_the_codebook_are_refused() -> None:
    for codes in (torch.full((1, 1), 16), np.full((2, 2), -1), torch.zeros(3), torch.zeros(0, 2, dtype=torch.long)):
        with pytest.raises(ValueError, match="codes"):
            processor().image_ids(codes)


def test_decoding_leaves_special_tokens_out() -> None:
    ours = processor()
    row = [ours.ids.bos, *ours.text_ids("é"), ours.ids.eos]
    assert ours.decode(row) == "é"
    assert ours.decode(row, skip_special=False) == "<|extra_203|>é<|extra_204|>"
    assert len(SPECIAL) == ours.ids.visual_first - ours.ids.pad
