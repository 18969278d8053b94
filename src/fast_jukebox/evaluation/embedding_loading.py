"""Embeddings by name."""

from __future__ import annotations

import torch

from fast_jukebox.evaluation.clap import Clap
from fast_jukebox.evaluation.embeddings import AudioEmbedding
from fast_jukebox.evaluation.encoders import EncoderEmbedding
from fast_jukebox.evaluation.musicnn import MusicnnEmbedding
from fast_jukebox.evaluation.vggish import VGGishEmbedding

EMBEDDINGS = {
    "musicnn_mtt": "musicnn trained on MagnaTagATune; comes with the package",
    "musicnn_msd": "musicnn trained on the Million Song Dataset; comes with the package",
    "clap:MODEL": "a ClapModel by its folder or Hub name, such as clap:laion/larger_clap_music",
    "encodec:MODEL": "an EncodecModel, such as encodec:facebook/encodec_24khz",
    "dac:MODEL": "a DacModel, such as dac:descript/dac_44khz",
    "mert:MODEL": "MERT, a HubertModel, such as mert:m-a-p/MERT-v1-95M",
    "vggish:FILE": "VGGish from a file of its weights in torch's layout (torchvggish's names)",
}
"""Names for [`load_embedding`], with their meaning."""


def load_embedding(name: str, device: str | torch.device = "cpu") -> AudioEmbedding:
    """The embedding of a name of [`EMBEDDINGS`], in which `-` is read as `_`.

    Raises:
        ValueError: another name, or weights that do not fit.
        OSError: the model that is named is not there and cannot be fetched.
    """
    kind, _, source = name.partition(":")
    kind = kind.replace("-", "_").lower()
    if kind in ("musicnn_mtt", "musicnn_msd") and not source:
        return MusicnnEmbedding(kind, device)
    if kind == "vggish" and source:
        return VGGishEmbedding(source, device)
    if kind == "clap" and source:
        return Clap.from_pretrained(source, device)
    if kind in ("encodec", "dac", "mert") and source:
        return EncoderEmbedding.from_pretrained(kind, source, device)
    raise ValueError(f"`embedding` must be one of {', '.join(EMBEDDINGS)}, got {name!r}")
