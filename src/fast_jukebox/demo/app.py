"""The studio in the browser: all pages, and the server."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING

from fast_jukebox.demo.compare import compare_page
from fast_jukebox.demo.compose import compose_page
from fast_jukebox.demo.form import browser_state
from fast_jukebox.demo.html import text
from fast_jukebox.demo.inside import inside_page
from fast_jukebox.demo.play import play_page
from fast_jukebox.demo.recording import recording_page
from fast_jukebox.demo.studio import Studio

if TYPE_CHECKING:
    import gradio as gr

_TITLE = "Fast Jukebox"
_KEEP_UPLOADS = 24 * 3600
"""Seconds after which an upload is deleted."""


def require_gradio() -> None:
    """Fail before a model is loaded where Gradio is not there.

    Raises:
        ImportError: says how to install it.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ImportError('the studio needs Gradio: pip install "fast-jukebox[demo]"') from error


def build(studio: Studio) -> gr.Blocks:
    """The pages of a studio as Gradio blocks. Sends nothing to anybody.

    Raises:
        ImportError: Gradio is not there.
    """
    require_gradio()
    os.environ["GRADIO_TEMP_DIR"] = str(studio.uploads_folder)
    import gradio as gr

    with gr.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=(3600, _KEEP_UPLOADS)) as blocks:
        gr.HTML(_header(studio), elem_id="fj-header", js_on_load="fastJukebox.theme(element);")
        browser, test = browser_state("browser"), browser_state("test")
        pages: dict[str, Callable[[], None]] = {
            "Play": lambda: play_page(studio),
            "Continue": lambda: recording_page(studio),
            "Compose": lambda: compose_page(studio, browser),
            "Compare": lambda: compare_page(studio, test),
            "Inside": lambda: inside_page(studio),
        }
        with gr.Tabs(elem_id="fj-tabs"):
            for title, page in pages.items():
                with gr.Tab(title, id=title.lower()):
                    page()
    return blocks


def launch(
    studio: Studio,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    block: bool = True,
) -> tuple[gr.Blocks, str]:
    """Serve a studio until Ctrl-C.

    Args:
        studio: to serve.
        host: address to listen on; `"0.0.0.0"` for all of this machine.
        port: by default the first free one from 7860.
        share: let Gradio's relay make it reachable for everybody who knows the address.
        block: return only when the server ends.

    Returns:
        The blocks, to close, and the address.

    Raises:
        ImportError: Gradio is not there.
        OSError: the port is taken.
    """
    blocks = build(studio)
    from starlette.middleware import Middleware

    from fast_jukebox.demo.server import Headers, routes

    _, address, shared = blocks.launch(
        server_name=host,
        server_port=port,
        share=share,
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        allowed_paths=[],
        max_file_size=studio.limits.upload_bytes,
        app_kwargs={"routes": routes(studio), "middleware": [Middleware(Headers, studio=studio)]},
        **_style(),
    )
    address = shared or address
    if block:
        print(f"The studio is at {address} (Ctrl-C ends it; songs are kept in {studio.folder})", flush=True)
        blocks.block_thread()
    return blocks, address


def _style() -> dict[str, object]:
    """Theme, style and script, none of which is loaded from elsewhere."""
    import gradio as gr

    folder = resources.files("fast_jukebox.demo")
    script = (folder / "studio.js").read_text(encoding="utf-8")
    theme = gr.themes.Base(
        primary_hue="amber",
        neutral_hue="stone",
        radius_size="md",
        font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    return {
        "theme": theme,
        "css": (folder / "studio.css").read_text(encoding="utf-8"),
        "head": f"{viewport}<script>{script}</script>",
    }


def _header(studio: Studio) -> str:
    names = ", ".join(studio.models)
    return (
        f'<header class="fj-header"><div><h1>{_TITLE}</h1><p>Music as raw audio, made while you listen · {text(names)}'
        '</p></div><button type="button" class="fj-button" data-theme aria-label="Light or dark">◐</button></header>'
    )
