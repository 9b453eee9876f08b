"""Changes of networks in ONNX, field by field, and of pictures, chunk by chunk and marker by marker."""

import random
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from tests.fuzzing.mutate import TEXTS, bytes_of, overwrite


def onnx_of(data: bytes, draw: random.Random) -> bytes:
    """A network in which some fields of its messages are others; or other bytes."""
    import onnx

    if draw.random() < 0.15:
        return bytes_of(data, draw)
    network = onnx.ModelProto.FromString(data)
    for _ in range(draw.choice([1, 1, 2, 4])):
        _field(draw.choice(list(_messages(network))), draw)
    found: bytes = network.SerializeToString()
    return found


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, held in message.ListFields():
        if field.message_type is not None:
            for one in held if field.is_repeated else [held]:
                yield from _messages(one)


def _field(message: Any, draw: random.Random) -> None:
    field = draw.choice(message.DESCRIPTOR.fields)
    known = [one for one, _ in message.ListFields()]
    if known and draw.random() < 0.8:
        field = draw.choice(known)
    held = getattr(message, field.name)
    if field.is_repeated:
        _repeated(field, held, draw)
    elif draw.random() < 0.2:
        message.ClearField(field.name)
    elif field.message_type is not None:
        held.SetInParent()
    else:
        setattr(message, field.name, _scalar(field, held, draw))


def _repeated(field: Any, held: Any, draw: random.Random) -> None:
    at = draw.randrange(len(held)) if len(held) else 0
    kind = draw.randrange(4)
    if kind == 0 and len(held):
        del held[at]
    elif field.message_type is not None:
        added = held.add()
        if len(held) > 1:
            added.CopyFrom(held[at])
        if kind == 1 and len(held) > 2:
            del held[at]
    elif kind == 1 and len(held):
        held[at] = _scalar(field, held[at], draw)
    else:
        held.extend([_scalar(field, held[at] if len(held) else None, draw)] * draw.choice([1, 1, 40]))


def _scalar(field: Any, old: Any, draw: random.Random) -> Any:
    """A value that the field can hold."""
    kind = field.cpp_type
    if kind in {field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE}:
        return draw.choice([0.0, -1.0, 1e30, float("nan"), float("inf")])
    if kind == field.CPPTYPE_ENUM:
        return draw.choice([one.number for one in field.enum_type.values])
    if kind == field.CPPTYPE_STRING:
        known = field.type == field.TYPE_BYTES
        if known:
            return bytes_of(bytes(old or b"x"), draw)
        text = draw.choice([one for one in TEXTS if one.isprintable() or one < "\x7f"])
        return draw.choice([text, f"{old}x", "Loop", "Conv", "MatMul", "face", "embedding"])
    if kind == field.CPPTYPE_BOOL:
        return not old
    wide = kind in {field.CPPTYPE_INT64, field.CPPTYPE_UINT64}
    numbers = [0, 1, 2, 3, 7, 11, 112, 1000, 10**6, 2**31 - 1, *([2**40, 2**62, 2**63 - 1] if wide else [])]
    signed = kind in {field.CPPTYPE_INT64, field.CPPTYPE_INT32}
    return draw.choice([*numbers, *([-1, -2, -(2**31)] if signed else [])])


def png_of(data: bytes, draw: random.Random) -> bytes:
    """A PNG whose chunks were changed, with checksums that hold; or other bytes."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    at, kind = draw.randrange(len(chunks)), draw.randrange(6)
    if kind == 0:
        return bytes_of(data, draw)
    if kind == 1:
        chunks.insert(at, draw.choice(chunks))
    elif kind == 2:
        del chunks[at]
    elif kind == 3:
        bomb = zlib.compress(bytes(draw.choice([1000, 3_000_000])))
        chunks.insert(1, draw.choice([(b"zTXt", b"x\0\0" + bomb), (b"iCCP", b"x\0\0" + bomb), (b"acTL", b"\xff" * 8)]))
    elif kind == 4:
        sides = struct.pack(">II", *(draw.choice([0, 1, 31, 48, 8000, 2**31 - 1, 2**32 - 1]) for _ in range(2)))
        chunks[0] = (b"IHDR", sides + bytes(chunks[0][1][8:]))
    else:
        chunks[at] = (chunks[at][0], bytes_of(chunks[at][1], draw))
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def photo_of(data: bytes, draw: random.Random) -> bytes:
    """A picture with other bytes; a PNG chunk by chunk, a JPEG also marker by marker."""
    if data.startswith(b"\x89PNG") and draw.random() < 0.8:
        return png_of(data, draw)
    found = bytearray(bytes_of(data, draw))
    if data.startswith(b"\xff\xd8") and draw.random() < 0.6:
        marks = [at for at in range(2, len(data) - 9) if data[at] == 0xFF and 0xC0 <= data[at + 1] < 0xFF]
        at = draw.choice(marks)
        found = bytearray(data)
        if draw.random() < 0.5:
            overwrite(found, at + draw.randrange(1, 10), draw)
        else:
            found[at:at] = data[at : at + draw.randrange(4, 400)] * draw.choice([1, 60])
    return bytes(found)
