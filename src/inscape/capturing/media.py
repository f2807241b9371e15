"""Pictures and sounds: which files they are, and how a file becomes an array."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from io import BytesIO
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


def is_media(value: Any) -> bool:
    """Whether the value is a picture or a sound as Hugging Face data sets hold it: {"bytes", "path"} or {"array", "sampling_rate"}."""
    if not isinstance(value, Mapping) or not set(value) <= {"bytes", "path", "array", "sampling_rate"}:
        return False
    return {"array", "sampling_rate"} <= set(value) or {"bytes", "path"} <= set(value)


def media_kind(value: Mapping[str, Any]) -> str:
    """What such a value is: "image" or "sound".

    Raises:
        StimuliError: neither its first bytes nor its name say it.
    """
    if "array" in value:
        return "sound"
    data, name = value["bytes"], value["path"]
    if data is None and name is None:
        raise StimuliError("a picture or sound is missing (it has neither bytes nor a path); drop those rows or fill them")
    head = bytes(data[:12]) if data is not None else b""
    if head.startswith((b"\x89PNG", b"\xff\xd8", b"GIF8", b"BM", b"II*", b"MM\0*")) or (head[:4] == b"RIFF" and head[8:] == b"WEBP"):
        return "image"
    if head.startswith((b"fLaC", b"OggS", b"ID3", b"FORM")) or (head[:4] == b"RIFF" and head[8:] == b"WAVE"):
        return "sound"
    found = file_kind(str(name or ""))
    if found is None:
        raise StimuliError(f"{str(name)!r} (it begins with {head!r}) is neither a picture nor a sound of a known kind")
    return found


def media_name(value: Mapping[str, Any]) -> str | None:
    """The file that such a value came from."""
    return None if value.get("path") is None else str(value["path"])


def media_digest(value: Mapping[str, Any]) -> bytes:
    """A hash of what such a value holds, not of its name."""
    if "array" in value:
        array = np.ascontiguousarray(np.asarray(value["array"]))
        return hashlib.sha256(f"{value['sampling_rate']} {array.dtype.str} {array.shape}".encode() + array.tobytes()).digest()
    data = value["bytes"]
    if data is None:
        data = Path(value["path"]).read_bytes() if Path(value["path"]).is_file() else b"missing"
    return hashlib.sha256(data).digest()


def read_image(value: Any) -> np.ndarray:
    """An image [height, width, channel] (or as given, for arrays) from a path, its bytes, a Pillow picture or an array."""
    if isinstance(value, (str, Path)) or is_media(value):
        source, name = _opened(value, "image", "arrays [height, width, channel]")
        require("PIL", "demo", f"reading the image {Path(name).name!r}")
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(source) as picture:
                return np.asarray(picture.convert("RGB"))
        except UnidentifiedImageError as error:
            raise StimuliError(f"{name!r} is not an image that Pillow can read ({error})") from error
    if is_picture(value):
        return np.asarray(value.convert("RGB"))
    return np.asarray(value)


def read_sound(value: Any) -> tuple[np.ndarray, int | None]:
    """A mono wave [samples] as fp32 in −1…1, with its sampling rate (None for an array, which does not know its own)."""
    if is_media(value) and "array" in value:
        wave = np.asarray(value["array"])
        # Data sets put the channels first, files last.
        return _mono(wave.T if wave.ndim == 2 and wave.shape[0] < wave.shape[1] else wave), int(value["sampling_rate"])
    if not isinstance(value, (str, Path)) and not is_media(value):
        return _mono(np.asarray(value)), None
    source, name = _opened(value, "sound", "arrays [samples]")
    head = source.getvalue()[:4] if isinstance(source, BytesIO) else b""
    if head == b"RIFF" or (not head and name.lower().endswith(".wav")):
        from scipy.io import wavfile

        try:
            rate, wave = wavfile.read(source)
        except ValueError as error:
            raise StimuliError(f"{name!r} is not a WAV file that can be read ({error})") from error
        return _mono(wave), int(rate)
    require("soundfile", "demo", f"reading the sound {Path(name).name!r}")
    import soundfile

    try:
        wave, rate = soundfile.read(source, dtype="float32")
    except soundfile.LibsndfileError as error:
        raise StimuliError(f"{name!r} is not a sound that can be read ({error})") from error
    return _mono(wave), int(rate)


def _opened(value: Any, what: str, arrays: str) -> tuple[Path | BytesIO, str]:
    """The file or the bytes of a picture or sound, and its name for messages."""
    if is_media(value):
        if value["bytes"] is not None:
            return BytesIO(value["bytes"]), media_name(value) or f"{what} of {len(value['bytes'])} bytes"
        value = value["path"]
    path = Path(value)
    if not path.is_file():
        raise StimuliError(f"there is no {what} file at {str(path)!r}; give paths that exist, or {arrays}")
    return path, str(path)


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
