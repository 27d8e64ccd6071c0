"""Names of columns, and of keys of messages, that hold pictures, video or sound: Luthier trains on text alone."""

from __future__ import annotations

import re
from typing import Any, Final

from luthier.errors import DatasetError

MEDIA: Final = ("images", "videos", "audios", "image", "video", "audio")
_NAME: Final = re.compile(
    r"((input|user|assistant|prompt|question|query|answer)_)?(image|img|picture|photo|video|audio|pixel_value)s?"
    r"(_(path|url|uri|file|filename|file_name|name|byte|base64|b64|id|data)s?)?|(experimental_)?attachments",
    re.IGNORECASE,
)


def is_media(name: str) -> bool:
    """Return whether a column or a key of this name holds media, or says where they are."""
    return _NAME.fullmatch(name.strip()) is not None


def check(message: dict[str, Any], field: str) -> None:
    """Raise DatasetError for a message, or a part of one, with media."""
    for name, value in message.items():
        if value and is_media(name):
            raise DatasetError(f"field `{field}.{name}`: images, video and audio are not supported; remove it")
