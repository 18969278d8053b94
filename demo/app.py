"""The studio as a Hugging Face Space, or anywhere else: `python demo/app.py`.

The environment names the model (`FAST_JUKEBOX_MODEL`, several with commas between; by default the embedded one) and the
folder of songs (`FAST_JUKEBOX_FOLDER`; on a Space with persistent storage a folder of that).
"""

from __future__ import annotations

import os
from pathlib import Path

from fast_jukebox.demo import launch
from fast_jukebox_cli.studio import open_studio


def main() -> None:
    """Serve the studio on all addresses of the machine, as a Space expects it."""
    models = [name.strip() for name in os.environ.get("FAST_JUKEBOX_MODEL", "").split(",") if name.strip()]
    folder = Path(os.environ.get("FAST_JUKEBOX_FOLDER", "studio"))
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    launch(open_studio(models, folder), host="0.0.0.0", port=port)


if __name__ == "__main__":
    main()
