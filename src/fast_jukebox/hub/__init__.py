from fast_jukebox.hub.cards import (
    LIBRARY_NAME,
    PIPELINE_TAG,
    TAGS,
    dataset_card,
    eval_results,
    model_card,
    require_license,
    write_model_card,
)
from fast_jukebox.hub.errors import HubError, clear_hub_errors
from fast_jukebox.hub.push import push_files, push_folder, push_model
from fast_jukebox.hub.reachable import Download, download_arguments, prefer_cache
from fast_jukebox.hub.update_card import stated_metrics, update_model_card

__all__ = [
    "LIBRARY_NAME",
    "PIPELINE_TAG",
    "TAGS",
    "Download",
    "HubError",
    "clear_hub_errors",
    "dataset_card",
    "download_arguments",
    "eval_results",
    "model_card",
    "prefer_cache",
    "push_files",
    "push_folder",
    "push_model",
    "require_license",
    "stated_metrics",
    "update_model_card",
    "write_model_card",
]
