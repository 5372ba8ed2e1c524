"""The page: a tab for each thing that the library does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from multimodal_zoo.gallery import chat, detect, fuse, generate, retrieve, zero_shot
from multimodal_zoo.gallery.showroom import Showroom
from multimodal_zoo.packages import needed

#: The package, what needs it, and what it is installed with.
GRADIO = ("gradio", "mmzoo app", "app")
#: Seconds between two looks for old files, and after which a file is one.
CLEANING = (600, 3600)
#: Title, ability, what makes its components, and how one gets a model for it.
TABS: tuple[tuple[str, str | None, Callable[[Showroom], None], str], ...] = (
    ("Retrieve", "retrieve", retrieve.tab, "mmzoo train quickstart"),
    ("Zero-shot", "zero_shot", zero_shot.tab, "mmzoo train quickstart"),
    ("Chat", "chat", chat.tab, "mmzoo train emu3/emoji"),
    ("Generate", "generate", generate.tab, "mmzoo train emu3/emoji"),
    ("Detect", "detect", detect.tab, "mmzoo train fast_bev/synthetic"),
    ("Fuse", None, fuse.tab, "mmzoo train capsfusion/emoji_distill"),
)


def page(room: Showroom) -> Any:
    """The whole page, as Gradio's `Blocks`.

    Args:
        room: what is shown.

    Raises:
        ModuleNotFoundError: Gradio is not installed.
    """
    gr = needed(*GRADIO)
    with gr.Blocks(title="multimodal_zoo", analytics_enabled=False, delete_cache=CLEANING) as found:
        gr.Markdown("# multimodal_zoo")
        for title, ability, tab, command in TABS:
            with gr.Tab(title):
                if ability is None or room.shelf.names(ability):
                    tab(room)
                else:
                    gr.Markdown(
                        f"There is no model for this tab in the folders of this page. One comes of `{command}`; "
                        "start `mmzoo app` again then."
                    )
    return found
