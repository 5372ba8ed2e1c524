"""Conversations behind a system message of their own."""

from __future__ import annotations

from random import Random

from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.registry import build


def test_a_message_stands_in_front_unless_there_is_one() -> None:
    turns = {"type": "conversation_turns", "special": False}
    layout = build({"type": "told_by", "system": "Be brief.", "layout": turns})
    assert layout.special is False
    asked, answer = Text("what?", "user"), Text("a cat", "assistant")
    told = layout(Document([asked, answer], {"key": "one"}), Random(0))
    assert (told.segments, told.key) == ([Text("Be brief.", "system"), asked, answer], "one")
    own = Document([Text("Be long.", "system"), asked, answer])
    assert layout(own, Random(0)).segments == own.segments
