"""Pictures and sounds: which files they are, and how a file becomes an array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from inscape.errors import StimuliError, require

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")
SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")


def file_kind(name: str) -> str | None:
    """What a file name ends like: "image", "sound" or None."""
    lower = name.lower()
    if lower.endswith(IMAGE_SUFFIXES):
        return "image"
    return "sound" if lower.endswith(SOUND_SUFFIXES) else None


def is_picture(value: Any) -> bool:
    """Whether the value is a picture of Pillow, without importing Pillow."""
    return any(base.__module__.split(".")[0] == "PIL" for base in type(value).__mro__)


def read_image(value: Any) -> np.ndarray:
    """An image [height, width, channel] (or as given, for arrays) from a path, a Pillow picture or an array."""
    if isinstance(value, (str, Path)):
        path = Path(value)
        if not path.is_file():
            raise StimuliError(f"there is no image file at {str(path)!r}; give paths that exist, or arrays [height, width, channel]")
        require("PIL", "demo", f"reading the image {path.name!r}")
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(path) as picture:
                return np.asarray(picture.convert("RGB"))
        except UnidentifiedImageError as error:
            raise StimuliError(f"{str(path)!r} is not an image that Pillow can read ({error})") from error
    if is_picture(value):
        return np.asarray(value.convert("RGB"))
    return np.asarray(value)


def read_sound(value: Any) -> tuple[np.ndarray, int | None]:
    """A mono wave [samples] as fp32 in −1…1, with its sampling rate (None for an array, which does not know its own)."""
    if not isinstance(value, (str, Path)):
        wave = np.asarray(value)
        return _mono(wave), None
    path = Path(value)
    if not path.is_file():
        raise StimuliError(f"there is no sound file at {str(path)!r}; give paths that exist, or arrays [samples]")
    if path.suffix.lower() == ".wav":
        from scipy.io import wavfile

        try:
            rate, wave = wavfile.read(path)
        except ValueError as error:
            raise StimuliError(f"{str(path)!r} is not a WAV file that can be read ({error})") from error
        return _mono(wave), int(rate)
    require("soundfile", "demo", f"reading the sound {path.name!r}")
    import soundfile

    wave, rate = soundfile.read(path, dtype="float32")
    return _mono(wave), int(rate)


def _mono(wave: np.ndarray) -> np.ndarray:
    if wave.dtype.kind in "iu":
        info = np.iinfo(wave.dtype)
        # Unsigned 8-bit WAV is centered at 128; the signed kinds at 0.
        wave = (wave.astype(np.float32) - (128.0 if info.min == 0 else 0.0)) / (128.0 if info.min == 0 else float(-int(info.min)))
    wave = wave.astype(np.float32, copy=False)
    if wave.ndim == 2:  # files are [samples, channel]
        wave = wave.mean(axis=1, dtype=np.float32)
    if wave.ndim != 1 or wave.size == 0:
        raise StimuliError(f"a sound has shape {wave.shape}; expected [samples] with at least one sample")
    return wave
