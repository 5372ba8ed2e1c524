"""What all tabs do alike: choose a model, take a picture, connect a button, say what went wrong."""

from __future__ import annotations

import html
import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any

from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.gallery.showroom import Showroom
from multimodal_zoo.messages import is_ours, sentence

logger = logging.getLogger(__name__)


def plain(error: BaseException, room: Showroom) -> str:
    """An error as a sentence for a visitor, without the folders of the machine.

    Args:
        error: any; one that nobody foresaw is logged with its traceback, and only named.
        room: whose folders are left out of the text.
    """
    if not (is_ours(error) or isinstance(error, UnusableError)):
        logger.error("a tab failed", exc_info=error)
        return f"Something went wrong ({type(error).__name__}); the terminal of mmzoo app says where."
    text = sentence(error)
    for folder in (room.scratch, *(one.parent for one in room.shelf.folders)):
        text = text.replace(f"{folder}/", "")
    return text[:1].upper() + text[1:]


def guarded(room: Showroom, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function, or generator function, whose errors are shown to the visitor in words."""
    import gradio as gr

    def shown(error: Exception) -> Exception:
        """What Gradio shows."""
        return gr.Error(html.escape(plain(error, room), quote=False), print_exception=False)

    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def steps(*values: Any) -> Iterator[Any]:
            """The function's own values."""
            try:
                yield from function(*values)
            except Exception as error:
                raise shown(error) from None

        return steps

    @wraps(function)
    def once(*values: Any) -> Any:
        """The function's own value."""
        try:
            return function(*values)
        except Exception as error:
            raise shown(error) from None

    return once


def connect(
    room: Showroom,
    triggers: Sequence[Callable[..., Any]],
    function: Callable[..., Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    stop: Any = None,
) -> None:
    """Run a function on the fields of a page when something is clicked; all such work waits in one queue.

    Args:
        room: whose limits hold.
        triggers: events of components, `button.click` for instance.
        function: from values to values; a generator shows each.
        inputs: components whose values it gets.
        outputs: components that it fills.
        stop: a button that ends it.
    """
    common: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
    events = [
        trigger(
            guarded(room, function),
            list(inputs),
            list(outputs),
            concurrency_limit=room.limits.jobs,
            concurrency_id="models",
            **common,
        )
        for trigger in triggers
    ]
    if stop is not None:
        stop.click(None, cancels=events, api_visibility="private")


def model_choice(room: Showroom, ability: str) -> Any:
    """A list of the models that have an ability; the first one is chosen."""
    import gradio as gr

    names = room.shelf.names(ability)
    return gr.Dropdown(names, value=names[0] if names else None, label="Model", elem_id=f"{ability}-model")


def picture_field(label: str, name: str) -> Any:
    """A field for one picture; what comes of it is the path of the file, not decoded."""
    import gradio as gr

    field: Any = gr.Image(
        type="filepath", sources=["upload", "clipboard"], label=label, height=240, buttons=["fullscreen"], elem_id=name
    )
    # Gradio would open the file before anything here can look at its size, and say nothing of what is wrong with it
    field.preprocess = lambda value: None if value is None else value.path or ""
    return field


def picture_shown(label: str, height: int, name: str) -> Any:
    """One picture that the page makes."""
    import gradio as gr

    return gr.Image(
        label=label,
        interactive=False,
        height=height,
        buttons=["fullscreen", "download"],  # the one that is left out would send the picture to a site
        elem_id=name,
    )


def pictures_shown(label: str, columns: int, height: int, name: str) -> Any:
    """Several pictures that the page makes, with a line of text each."""
    import gradio as gr

    return gr.Gallery(
        label=label,
        columns=columns,
        height=height,
        object_fit="contain",
        interactive=False,
        buttons=["fullscreen", "download"],
        elem_id=name,
    )
