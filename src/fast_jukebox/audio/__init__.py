"""Audio files: reading, resampling and writing."""

from fast_jukebox.audio.io import audio_info, load_audio, save_audio, stream_audio
from fast_jukebox.audio.readers import AudioInfo
from fast_jukebox.audio.resample import resample_audio
from fast_jukebox.audio.writer import AudioWriter

__all__ = ["AudioInfo", "AudioWriter", "audio_info", "load_audio", "resample_audio", "save_audio", "stream_audio"]
