"""TensorBoard's event files, written without TensorBoard or torch: TFRecord records, each a protobuf `Event`
(tensorflow/core/util/event.proto, framework/summary.proto).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types
_STRING: Final = 7  # DT_STRING
_POLYNOMIAL: Final = 0x82F63B78  # CRC-32C (Castagnoli), reflected


def version(at: float) -> bytes:
    """Return the record that every file starts with. `at`: Unix seconds."""
    return _record(_event(at, 0) + _text(3, b"brain.Event:2"))


def scalar(name: str, value: float, step: int, at: float) -> bytes:
    """Return the record of one point of a curve."""
    number = _key(2, _FIXED32) + struct.pack("<f", value)
    return _record(_event(at, step) + _text(5, _text(1, _text(1, name.encode()) + number)))


def markdown(name: str, text: str, at: float) -> bytes:
    """Return the record of a Markdown text."""
    shape = _text(2, _text(2, _key(1, _VARINT) + _varint(1)))
    tensor = _key(1, _VARINT) + _varint(_STRING) + shape + _text(8, text.encode())
    plugin = _text(1, _text(1, b"text"))
    value = _text(1, name.encode()) + _text(9, plugin) + _text(8, tensor)
    return _record(_event(at, 0) + _text(5, _text(1, value)))


def _event(at: float, step: int) -> bytes:
    return _key(1, _FIXED64) + struct.pack("<d", at) + _key(2, _VARINT) + _varint(step)


def _text(field: int, content: bytes) -> bytes:
    return _key(field, _BYTES) + _varint(len(content)) + content


def _key(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + _checksum(length) + content + _checksum(content)


def _checksum(content: bytes) -> bytes:
    """Return TFRecord's masked CRC-32C: rotated, so that checksums of checksums are safe."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _table() -> Iterator[int]:
    for entry in range(256):
        for _ in range(8):
            entry = entry >> 1 ^ (_POLYNOMIAL if entry & 1 else 0)
        yield entry


_TABLE: Final = tuple(_table())
