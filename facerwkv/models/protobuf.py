"""As much of protocol buffers as ONNX files need here: their fields found, and written again with some more.

An ONNX file is a ModelProto: its field GRAPH contains the graph, whose INITIALIZER are weights, and its METADATA are
texts by name (onnx.proto of github.com/onnx/onnx).
"""

from collections.abc import Iterator, Mapping

import numpy as np

GRAPH, METADATA = 7, 14
INITIALIZER = 5
DIMS, DATA_TYPE, NAME, RAW_DATA = 1, 2, 8, 9
DATA_TYPES = {"float32": 1, "int32": 6, "int64": 7, "bool": 9}


def fields(message: bytes) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of every field of a protocol buffer. ValueError for what is none."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        kind, start = key & 7, at
        if kind == 0:
            _, at = _read_varint(message, at)
        elif kind == 2:
            length, start = _read_varint(message, at)
            at = start + length
        else:
            raise ValueError(f"a field of kind {kind}")
        yield key >> 3, start, at


def joined(model: bytes, weights: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """An ONNX file whose graph has these weights as well, as float32 where they are float16.

    metadata: what takes the place of the file's own.
    """
    tensors = [_field(INITIALIZER, _tensor(name, array)) for name, array in weights.items()]
    parts, end = [], 0
    for number, start, stop in fields(model):
        if number == GRAPH:
            parts.append(_field(GRAPH, b"".join([model[start:stop], *tensors])))
        elif number != METADATA or metadata is None:
            parts.append(model[end:stop])
        end = stop
    for name, text in (metadata or {}).items():
        parts.append(_field(METADATA, _field(1, name.encode()) + _field(2, text.encode())))
    return b"".join(parts)


def _tensor(name: str, array: np.ndarray) -> bytes:
    """A TensorProto."""
    array = np.ascontiguousarray(array, np.float32 if array.dtype.kind == "f" else None)
    dims = b"".join(_varint(DIMS << 3) + _varint(length) for length in array.shape)
    kind = _varint(DATA_TYPE << 3) + _varint(DATA_TYPES[array.dtype.name])
    content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return dims + kind + _field(NAME, name.encode()) + _field(RAW_DATA, content)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """A number of seven bits a byte, the lowest first."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """A number, and where the next begins."""
    value = 0
    for shift in range(0, 70, 7):
        if at == len(message):
            raise ValueError("it is cut off")
        byte, at = message[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number that is too long")
