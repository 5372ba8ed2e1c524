"""Prompts as Emu's and Emu2's published code takes them: one string with a placeholder for each picture and frame."""

from __future__ import annotations

import re
from collections.abc import Sequence

from multimodal_zoo.data.documents import Image, Picture, Segment, Text, Video
from multimodal_zoo.data.emu_messages import VIDEO

#: Stands for a picture, and for one frame of a clip.
PICTURE, FRAME = "[<IMG_PLH>]", "[<VID_PLH>]"
#: A clip: its token, and its frames one behind the other.
CLIP = rf"(?:{re.escape(VIDEO)})?(?:{re.escape(FRAME)})+"


def placed(text: str, pictures: Sequence[Picture] = (), frames: Sequence[Picture] = ()) -> list[Segment]:
    """A prompt's texts, pictures and clips; frames in a row are one clip.

    Args:
        text: with `[<IMG_PLH>]` for each picture, and `[VIDEO]` and `[<VID_PLH>]` for each frame of a clip. The string
            `[/VIDEO]`, which ends a clip in published calls, is left out.
        pictures: in the order of their placeholders.
        frames: of all clips, in the order of theirs.
    """
    assert (text.count(PICTURE), text.count(FRAME)) == (len(pictures), len(frames))
    shown, waiting = iter(pictures), iter(frames)
    found: list[Segment] = []
    for part in re.split(f"({re.escape(PICTURE)}|{CLIP})", text.replace("[/VIDEO]", "")):
        if part == PICTURE:
            found.append(Image(next(shown)))
        elif FRAME in part:
            found.append(Video([next(waiting) for _ in range(part.count(FRAME))], 1.0))
        elif part:
            found.append(Text(part))
    return found
