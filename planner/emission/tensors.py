"""Constants too large for a source: a safetensors file beside it, to the byte."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from planner.errors import PlanFormatError
from planner.ir import LITERAL_LIMIT, Buffer, Program, Site

SUFFIX = ".constants.safetensors"
"""In place of the source's ``.py``."""

_LARGEST = 1 << 32
"""Bytes of one tensor."""

# Of a dtype: its name in the format, the bytes of an element, and the sizes that an element adds.
_FORMAT: dict[str, tuple[str, int, tuple[int, ...]]] = {
    "bool": ("BOOL", 1, ()),
    "uint8": ("U8", 1, ()),
    "int8": ("I8", 1, ()),
    "uint16": ("U16", 2, ()),
    "int16": ("I16", 2, ()),
    "float16": ("F16", 2, ()),
    "bfloat16": ("BF16", 2, ()),
    "uint32": ("U32", 4, ()),
    "int32": ("I32", 4, ()),
    "float32": ("F32", 4, ()),
    "uint64": ("U64", 8, ()),
    "int64": ("I64", 8, ()),
    "float64": ("F64", 8, ()),
    # The format has no complex numbers that all of its readers know.
    "complex64": ("F32", 8, (2,)),
    "complex128": ("F64", 16, (2,)),
}


def is_stored(buffer: Buffer) -> bool:
    """Whether ``buffer`` stands in the file beside the source."""
    return not buffer.expression and buffer.data is not None and len(buffer.data) > LITERAL_LIMIT


def key(owner: str, buffer: Buffer) -> str:
    """The name of a buffer of the class ``owner`` in the file."""
    return f"{owner}.{buffer.name}".lstrip(".")


def beside(source: Path) -> Path:
    """The file that belongs to ``source``."""
    return source.with_suffix(SUFFIX)


def constants(program: Program, sites: Iterable[Site]) -> Iterator[tuple[str, Buffer]]:
    """All constants with the names of what holds them: classes, or modules by their paths."""
    for definition in program.definitions:
        for buffer in definition.buffers:
            yield definition.name, buffer
    for site in sites:
        if site.values is not None:
            yield site.name.rpartition(".")[0], site.values


def tensors(program: Program, sites: Iterable[Site] = ()) -> bytes:
    """The file's content; empty if the source holds all constants itself.

    Raises:
        PlanFormatError: a constant's data are not the bytes of its shape and dtype.
    """
    header: dict[str, object] = {}
    parts: list[bytes] = []
    stop = 0
    for owner, buffer in constants(program, sites):
        if is_stored(buffer):
            start, raw = stop, _bytes(buffer)
            stop += len(raw)
            name, _, inner = _FORMAT[buffer.dtype]
            header[key(owner, buffer)] = {
                "dtype": name,
                "shape": [*buffer.shape, *inner],
                "data_offsets": [start, stop],
            }
            parts.append(raw)
    if not header:
        return b""
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    # Tensors start at a multiple of eight.
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, *parts))


def digest(buffer: Buffer) -> str:
    """SHA-256 of the tensor's bytes, in hexadecimal."""
    return hashlib.sha256(_bytes(buffer)).hexdigest()


@functools.lru_cache(maxsize=4)
def _bytes(buffer: Buffer) -> bytes:
    """The tensor's bytes, little-endian."""
    if buffer.dtype not in _FORMAT:
        raise PlanFormatError(f"buffer {buffer.name!r}: no file can hold {buffer.dtype!r}")
    size = math.prod(buffer.shape) * _FORMAT[buffer.dtype][1]
    if not 0 <= size <= _LARGEST or min(buffer.shape, default=0) < 0:
        raise PlanFormatError(f"buffer {buffer.name!r} of {size:,} bytes is too large")
    # What would unpack to more is never unpacked.
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(base64.b64decode(buffer.data or "", validate=True), size + 1)
    except (zlib.error, binascii.Error) as error:
        raise PlanFormatError(f"buffer {buffer.name!r} has no readable data: {error}") from None
    if len(raw) != size:
        raise PlanFormatError(f"buffer {buffer.name!r} has data of another size than {size:,}")
    return raw
