"""Serving the page: on this machine alone, unless another address is asked for."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from multimodal_zoo.gallery.guard import Guard
from multimodal_zoo.gallery.page import GRADIO, page
from multimodal_zoo.gallery.showroom import Showroom
from multimodal_zoo.packages import needed

#: Names of this machine, for itself.
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def serving(room: Showroom, host: str = "127.0.0.1", port: int = 7860, show: bool = False) -> Iterator[str]:
    """Serve a page while the block runs.

    Nothing is sent anywhere: no analytics, no shared link, fonts of the system; files are served from the room's own
    folder alone.

    Args:
        room: what is shown.
        host: the address that is listened on.
        port: 0 takes any free one.
        show: open a browser.

    Yields:
        where the page is.

    Raises:
        ModuleNotFoundError: Gradio is not installed.
        OSError: the port is taken.
    """
    gr = needed(*GRADIO)
    with _own_folder(room):
        blocks = page(room)
        limits = room.limits
        blocks.queue(default_concurrency_limit=limits.jobs, max_size=limits.waiting, api_open=False)
        theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
        try:
            _, url, _ = blocks.launch(
                server_name=host,
                server_port=port or None,
                share=False,
                inbrowser=show,
                quiet=True,
                prevent_thread_lock=True,
                show_error=False,
                footer_links=[],
                theme=theme,
                max_file_size=limits.bytes,
                allowed_paths=[],
                enable_monitoring=False,
                mcp_server=False,
                pwa=False,
                ssr_mode=False,
                app_kwargs={"middleware": [_guard(room, host)]},
            )
        except OSError as error:
            raise OSError(f"port={port}: {host}:{port} cannot be listened on ({error}); choose another port") from None
        try:
            yield url
        finally:
            blocks.close(verbose=False)


def _guard(room: Showroom, host: str) -> Any:
    from starlette.middleware import Middleware

    hosts = (*LOOPBACK, host) if is_loopback(host) else None
    upload = room.limits.upload_bytes
    return Middleware(Guard, scratch=room.scratch, upload=upload, hosts=hosts)  # type: ignore[arg-type]


@contextmanager
def _own_folder(room: Showroom) -> Iterator[None]:
    """Have Gradio keep all files in the room's folder, and send nothing home."""
    own = {"GRADIO_TEMP_DIR": str(room.scratch), "GRADIO_ANALYTICS_ENABLED": "False"}
    before = {key: os.environ.get(key) for key in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
