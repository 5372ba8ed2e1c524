"""Templates against their published strings; tests/parity has more of these."""

from __future__ import annotations

import pytest

from multimodal_zoo.data.conversation_templates import TEMPLATES, Turn, printed, template_named

CHATS = ["vicuna_v1", "v1", "eve_v1", "eve_v0", "qwen2", "llama3"]


@pytest.mark.parametrize("name", [*CHATS, "eve_llama_2"])
def test_pieces_and_published_strings_agree(name: str) -> None:
    template = template_named(name)
    turns = [Turn("Hi", (), "Hello."), Turn(" What? ", (0,), "A kite"), Turn("Why?", (), None)]
    messages = ["Hi", "Hello.", "<image>\nWhat?", "A kite", "Why?", None]
    assert printed(template.pieces(turns)) == template.written(messages)
    assert printed(template.pieces(turns[:2])) == template.written(messages[:4])


@pytest.mark.parametrize("name", CHATS)
def test_an_answer_and_its_end_are_learnt(name: str) -> None:
    template = template_named(name)
    pieces = list(template.pieces([Turn("Hi", (), "Hello."), Turn("Bye", (0,), "Bye!")]))
    learnt = printed([piece for piece in pieces if getattr(piece, "learnt", False)])
    assert learnt == f" Hello.{template.end} Bye!{template.end}"


def test_pictures_stand_in_front_of_their_question() -> None:
    pieces = TEMPLATES["qwen2"].pieces([Turn("Which?", (0, 1), None)])
    assert printed(pieces).endswith("USER: <image>\n<image>\nWhich? ASSISTANT:")
    alone = TEMPLATES["qwen2"].pieces([Turn("  ", (0,), None)])
    assert printed(alone).endswith("USER: <image> ASSISTANT:")


def test_plain_templates_leave_questions_out() -> None:
    turns = [Turn("Describe it", (0,), " a kite \n")]
    assert printed(TEMPLATES["plain"].pieces(turns)) == "<image> a kite \n\n"
    assert printed(TEMPLATES["plain_stripped"].pieces(turns)) == "<image>a kite\n"
    assert printed(TEMPLATES["plain"].pieces([Turn("What?", (0,), None)])) == "<image>"


def test_unknown_templates_name_their_neighbours() -> None:
    with pytest.raises(KeyError, match=r"vicuna_v2.*vicuna_v1.*|processor\.template"):
        template_named("vicuna_v2")
