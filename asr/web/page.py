"""The whole page: head, tabs, looks, and how it is served."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from asr.recognizer import Recognizer
from asr.web.transcribe import transcribe_tab
from asr.web.visits import Visits

FOLDER = Path(__file__).parent
LARGEST_UPLOAD = "2gb"  # three hours of CD sound
SWEEP_SECONDS, KEPT_SECONDS = 60, 3600  # what no closing page deleted goes an hour after its upload
WAITING = 32  # more would wait for minutes

ICON = FOLDER / "favicon.svg"
HEAD = f"""
<header class="hark">
  <h1>{ICON.read_text(encoding="utf-8")}Hark</h1>
  <p>Record or drop a file, and read what was said.</p>
  <p class="privacy">It works offline: a recording goes no further than the machine that serves this page,
  and is deleted when you close it.</p>
  <p class="notice insecure" role="alert" hidden>The microphone works only over https or on localhost,
  a rule of browsers. Open this page that way, or upload a file.</p>
</header>
"""
SHOW_INSECURE = "element.querySelector('.insecure').hidden = window.isSecureContext;"

FONTS = ["system-ui", "sans-serif"]  # no name that Gradio would ask Google for
THEME = gr.themes.Base(
    primary_hue="teal",
    neutral_hue="stone",
    font=FONTS,
    font_mono=["ui-monospace", "monospace"],
    radius_size="lg",
)


def build_page(recognizers: Mapping[str, Recognizer]) -> gr.Blocks:
    """The page for `recognizers` (name → recogniser, at least one; the first is chosen at the start)."""
    visits = Visits()
    with gr.Blocks(
        title="Hark", analytics_enabled=False, delete_cache=(SWEEP_SECONDS, KEPT_SECONDS), fill_width=False
    ) as page:
        gr.HTML(HEAD, js_on_load=SHOW_INSECURE, apply_default_css=False)
        transcribe_tab(recognizers, visits)

        def closed(request: gr.Request) -> None:
            visits.end(request.session_hash)

        page.unload(closed)
    return page.queue(max_size=WAITING)


def serving_options() -> dict[str, Any]:
    """What `launch` or `mount_gradio_app` need beside the page; nothing is kept or fetched from elsewhere."""
    return {
        "theme": THEME,
        "css_paths": [FOLDER / "page.css"],
        "favicon_path": ICON,
        "footer_links": ["api"],
        "run_history": False,
        "max_file_size": LARGEST_UPLOAD,
    }
