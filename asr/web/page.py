"""The whole page: header, tabs, theme and the options to serve it with."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from asr.recognizer import Recognizer
from asr.turns import Turns
from asr.web.sessions import Sessions
from asr.web.transcribe import transcribe_tab

FOLDER = Path(__file__).parent
LARGEST_UPLOAD = "2gb"  # three hours of CD audio
CLEANUP_SECONDS, KEPT_SECONDS = 60, 3600  # uploads are deleted after an hour, should their page not do it
QUEUE_SIZE = 32  # a longer queue would mean minutes of waiting

ICON = FOLDER / "favicon.svg"
HEAD = f"""
<header class="hark">
  <h1>{ICON.read_text(encoding="utf-8")}Hark</h1>
  <p>Record speech, or drop a file, several or a folder, and read the text.</p>
  <p class="privacy">Works offline. The machine that serves this page deletes recordings when you close it;
  this browser keeps the last ones with their texts, until you forget them.</p>
  <p class="notice insecure" role="alert" hidden>Browsers allow the microphone only over https or on
  localhost. Open this page that way, or upload a file.</p>
</header>
"""
SHOW_INSECURE = "element.querySelector('.insecure').hidden = window.isSecureContext;"

FONTS = ["system-ui", "sans-serif"]  # Gradio would fetch other fonts from Google
THEME = gr.themes.Base(
    primary_hue="teal",
    neutral_hue="stone",
    font=FONTS,
    font_mono=["ui-monospace", "monospace"],
    radius_size="lg",
)


Tab = Callable[[Mapping[str, Recognizer], Turns, Sessions], None]  # adds its components to the current Blocks


def build_page(
    recognizers: Mapping[str, Recognizer], turns: Turns, tabs: Mapping[str, Tab] | None = None
) -> gr.Blocks:
    """The page for `recognizers` (name → recogniser, at least one; the first is the default).

    Args:
      turns: that all recordings of the server take.
      tabs: what the page has besides "Transcribe", by name: those of packages that `asr` does not import.
    """
    sessions = Sessions()
    with gr.Blocks(
        title="Hark", analytics_enabled=False, delete_cache=(CLEANUP_SECONDS, KEPT_SECONDS), fill_width=False
    ) as page:
        gr.HTML(HEAD, js_on_load=SHOW_INSECURE, apply_default_css=False)
        if tabs:
            with gr.Tabs():
                for name, add in {"Transcribe": transcribe_tab, **tabs}.items():
                    with gr.Tab(name):
                        add(recognizers, turns, sessions)
        else:
            transcribe_tab(recognizers, turns, sessions)

        def closed(request: gr.Request) -> None:
            sessions.end_all(request.session_hash)

        page.unload(closed)
    return page.queue(max_size=QUEUE_SIZE)


def serving_options() -> dict[str, Any]:
    """Arguments for `launch` or `mount_gradio_app`: no run history, nothing fetched from other hosts."""
    return {
        "theme": THEME,
        "css_paths": [FOLDER / "page.css"],
        "favicon_path": ICON,
        "footer_links": ["api"],
        "run_history": False,
        "max_file_size": LARGEST_UPLOAD,
    }
