"""Changes of files, by what they hold; each is decided by a `random.Random` alone."""

import copy
import io
import json
import random
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

Mutate = Callable[[bytes, random.Random], bytes]

OUTSIDE = "../../outside/secret"
"""Leads from a file of a place to what no reader may open; the driver puts something there."""
TEXTS = [
    *("", "x", " ", "../../x", OUTSIDE, f"{OUTSIDE}.json", "/etc/hostname", "a\\..\\b", "~/x", "C:/x", "file:///x"),
    *("\x1b[2J\x1b]0;x\x07", "a\0b", "\u202egpj", "\u2028", "\ufeff", "\ud800", "é" * 300, "x" * 5000, "9" * 60),
    *("os.system", "__import__('os')", "gelu", "float16", "${HOME}", "%s%n", "NaN", "-1", "1e999", "true", "0x10"),
    *("a" * 64, "f" * 64, "[[]]", "{}", "'", '"', "<script>", "a=b", "IREU_SEED"),
]
NUMBERS: list[Any] = [
    *(0, -1, 1, 2, 3, 7, 255, 256, 65535, 10**6, 10**9, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, 2**64, 10**38, 10**60),
    *(-0.0, 0.5, 1e-308, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf"), 1.0, 3.0),
]
OTHERS: list[Any] = [None, True, False, [], {}, [[]], [1, 2], {"a": {}}, [None], ["a", "b"], {"": 0}]
KEYS = ["auto_map", "__class__", "__proto__", "vision_config", "to_dict", "x", "", "a\0b", "file", "seal", "key"]


def value(draw: random.Random) -> Any:
    """Any value of JSON, most of them not meant."""
    kind = draw.randrange(8)
    if kind < 3:
        return draw.choice(TEXTS)
    if kind < 6:
        return draw.choice(NUMBERS)
    return copy.deepcopy(draw.choice(OTHERS))


def bytes_of(data: bytes, draw: random.Random) -> bytes:
    """Flip, cut, repeat, splice or overwrite; the head, where lengths and shapes stand, most of all."""
    found = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 8])):
        at = draw.randrange(max(len(found), 1)) if draw.random() < 0.5 else draw.randrange(min(len(found), 600) or 1)
        kind = draw.randrange(9)
        if kind == 0 and found:
            found[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            found = found[:at]
        elif kind == 2:
            found[at:at] = found[at : at + draw.randrange(1, 64)] * draw.choice([1, 3, 200])
        elif kind == 3:
            overwrite(found, at, draw)
        elif kind == 4:
            del found[at : at + draw.randrange(1, 16)]
        elif kind == 5:
            other = draw.randrange(max(len(found), 1))
            found[at : at + 32] = found[other : other + draw.randrange(1, 256)]
        elif kind == 6:
            found += draw.choice([b"\0", b"\n", b" " * 5000, draw.randbytes(64), data[:200]])
        else:
            found[at : at + 1] = draw.randbytes(1)
    return bytes(found)


def overwrite(found: bytearray, at: int, draw: random.Random) -> None:
    """Put an extreme number where a length may stand, in any width and order."""
    width = draw.choice([1, 2, 4, 8])
    number = draw.choice([0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1])
    found[at : at + width] = (number % (1 << (8 * width))).to_bytes(width, draw.choice(["little", "big"]))


def places_in(told: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to every value of a tree."""
    yield path
    inner = told.items() if isinstance(told, dict) else enumerate(told) if isinstance(told, list) else ()
    for key, each in inner:
        yield from places_in(each, (*path, key))


def tree_of(told: Any, draw: random.Random) -> Any:
    """A copy of a tree in which some values are others, elsewhere, gone or doubled."""
    told = copy.deepcopy(told)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        if not isinstance(told, dict | list) or not told:
            return value(draw)
        *path, last = _place(told, draw)
        spot = told
        for key in path:
            spot = spot[key]
        _change(spot, last, told, draw)
    return told


def _place(told: Any, draw: random.Random) -> tuple[Any, ...]:
    """Where to change something: anywhere, or by a walk from the top, which finds what is shallow more often."""
    if draw.random() < 0.5:
        return draw.choice([place for place in places_in(told) if place])
    path: tuple[Any, ...] = ()
    while isinstance(told, dict | list) and told and (not path or draw.random() < 0.6):
        key = draw.choice(list(told)) if isinstance(told, dict) else draw.randrange(len(told))
        path, told = (*path, key), told[key]
    return path


def _change(spot: Any, last: Any, told: Any, draw: random.Random) -> None:
    kind = draw.randrange(10)
    if kind == 0:
        del spot[last]
    elif kind == 1 and isinstance(spot, dict):
        spot[draw.choice(KEYS + TEXTS)] = value(draw)
    elif kind == 2 and isinstance(spot, dict):
        spot[draw.choice(TEXTS)] = spot.pop(last)
    elif kind == 3 and isinstance(spot, list):
        spot.extend([copy.deepcopy(spot[last])] * draw.choice([1, 2, 300]))
    elif kind == 4:
        *path, key = _place(told, draw)
        other = told
        for one in path:
            other = other[one]
        spot[last] = copy.deepcopy(other[key])
    elif kind == 5:
        spot[last] = _near(spot[last], draw)
    else:
        spot[last] = value(draw)


def _near(old: Any, draw: random.Random) -> Any:
    """A value like the one that was there."""
    if isinstance(old, bool):
        return not old
    if isinstance(old, int | float):
        return draw.choice([old + 1, old - 1, -old, old * 2, float(old), str(old), old * 10**9])
    if isinstance(old, str) and old:
        at = draw.randrange(len(old))
        return draw.choice([old[:at], old + old, old[:at] + draw.choice("xX9/.\0\u202e") + old[at + 1 :], old.upper()])
    return [old]


def text_of(told: Any, indent: int | None = None) -> bytes:
    """JSON as records are written: sorted keys, and what is no number by its name."""
    text = json.dumps(told, sort_keys=indent is not None, indent=indent, ensure_ascii=False)
    return text.encode(errors="surrogatepass") + (b"" if indent is None else b"\n")


def json_of(data: bytes, draw: random.Random) -> bytes:
    """Another tree, or another text of it: doubled keys, depth, escapes, encodings; or other bytes."""
    kind = draw.randrange(12)
    if kind == 0:
        return bytes_of(data, draw)
    told = json.loads(data)
    if kind == 1:
        return _texts_of_json(data, told, draw)
    if kind == 2:
        return json.dumps(tree_of(told, draw)).encode()
    return text_of(tree_of(told, draw), 2 if data.endswith(b"\n") else None)


def _texts_of_json(data: bytes, told: Any, draw: random.Random) -> bytes:
    kind = draw.randrange(8)
    if kind == 0:
        return draw.choice([b"[", b'{"a":']) * draw.choice([40, 2000, 200_000])
    if kind == 1:
        deep: Any = []
        for _ in range(draw.choice([20, 33, 400])):
            deep = [deep] if draw.random() < 0.5 else {"a": deep}
        return text_of({**told, draw.choice([*told, "x"]): deep} if isinstance(told, dict) and told else deep)
    if kind == 2 and isinstance(told, dict) and told:
        key = draw.choice(list(told))
        again = json.dumps({key: value(draw)})[1:-1].encode()
        return data.rstrip()[:-1].rstrip() + b", " + again + b"}"
    if kind == 3:
        return data.decode().encode(draw.choice(["utf-16", "utf-32", "utf-8-sig"]))
    if kind == 4:
        return data.replace(b'"', b'"\\ud800', draw.choice([1, 3, 9]))
    if kind == 5:
        return data.replace(b": ", b": " + draw.choice([b"NaN, ", b"1e9999, ", b"-", b"0", b"9" * 5000, b"tru"]), 1)
    return data + data if kind == 6 else draw.choice([b"", b"null", b"3", b'"x"', b"{}", b"[]", b" " * 3_000_000])


def safetensors_of(data: bytes, draw: random.Random) -> bytes:
    """Another header around the same values, other values under the same header, or other bytes."""
    kind = draw.randrange(6)
    if kind == 0:
        return bytes_of(data, draw)
    length = struct.unpack("<Q", data[:8])[0]
    header, values = data[8 : 8 + length], bytearray(data[8 + length :])
    if kind == 1:
        for _ in range(draw.choice([1, 4, 64])):
            values[draw.randrange(len(values))] = draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)])
        return data[: 8 + length] + values
    told = json.loads(header)
    text = text_of(_header_of(told, draw)) if kind < 5 else json_of(header, draw)
    stated = len(text) if draw.random() < 0.9 else draw.choice([0, len(text) + 1, 2**31, 2**63, 2**64 - 1])
    return struct.pack("<Q", stated) + text + values


def _header_of(told: dict[str, Any], draw: random.Random) -> Any:
    names = [name for name in told if name != "__metadata__"]
    if draw.random() < 0.3 or not names:
        return tree_of(told, draw)
    told, name = copy.deepcopy(told), draw.choice(names)
    entry, kind = told[name], draw.randrange(7)
    if kind == 0:
        entry["dtype"] = draw.choice(["F64", "F32", "F16", "BF16", "I64", "I8", "U8", "BOOL", "F8_E4M3", "F4", "C64"])
    elif kind == 1:
        entry["shape"] = draw.choice([[], [0], [-1], [2**62, 4], [1, *entry["shape"]], entry["shape"][::-1], [3]])
    elif kind == 2:
        other = told[draw.choice(names)]
        entry["data_offsets"], other["data_offsets"] = other["data_offsets"], entry["data_offsets"]
    elif kind == 3:
        other = draw.choice(names)
        told[name], told[other] = told[other], told[name]
    elif kind == 4:
        del told[name]
    elif kind == 5:
        told[draw.choice(names + TEXTS)] = copy.deepcopy(entry)
    else:
        told[name + draw.choice(["x", ".weight", "\0", ".absmax", "\u202e"])] = told.pop(name)
    return told


def archive_of(data: bytes, draw: random.Random) -> bytes:
    """A `.pt` file whose members were changed and packed again, so that its checksums hold; or other bytes."""
    if draw.random() < 0.3 or not zipfile.is_zipfile(io.BytesIO(data)):
        return bytes_of(data, draw)
    with zipfile.ZipFile(io.BytesIO(data)) as read:
        members = [(info.filename, read.read(info)) for info in read.infolist()]
    at = draw.randrange(len(members)) if draw.random() < 0.4 else 0
    name, content = members[at]
    kind = draw.randrange(6)
    if kind == 0:
        del members[at]
    elif kind == 1:
        members[at] = (draw.choice(["../x", "archive/data/9", f"{name}x", "/x"]), content)
    elif kind == 2:
        members.append(members[at])
    else:
        members[at] = (name, bytes_of(content, draw))
    buffer = io.BytesIO()
    # Archives that hold a name twice are meant.
    with (
        warnings.catch_warnings(action="ignore"),
        zipfile.ZipFile(buffer, "w", draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as written,
    ):
        for one, inner in members:
            info = zipfile.ZipInfo(one)
            info.compress_type = written.compression
            written.writestr(info, inner)
    return buffer.getvalue()


def lines_of(data: bytes, draw: random.Random) -> bytes:
    """A text whose lines and values are others, for TOML and CSV."""
    if draw.random() < 0.2:
        return bytes_of(data, draw)
    lines = data.decode().splitlines()
    for _ in range(draw.choice([1, 1, 2, 5])):
        at = draw.randrange(len(lines))
        mark = "=" if "=" in lines[at] else ","
        cells, kind = lines[at].split(mark), draw.randrange(7)
        if kind == 0:
            lines.insert(at, draw.choice(lines))
        elif kind == 1 and len(lines) > 1:
            del lines[at]
        elif kind == 2:
            lines[at] = "".join(draw.sample(lines[at], len(lines[at])))
        elif kind == 3:
            lines.insert(at, draw.choice(["[a.b.c]", "[[x]]", "x = " + "[" * 5000, "x" + ".a" * 3000 + " = 1", "\0"]))
        else:
            cells[draw.randrange(len(cells))] = _cell(draw)
            lines[at] = mark.join(cells)
    return "\n".join(lines).encode(errors="surrogatepass")


def _cell(draw: random.Random) -> str:
    one = value(draw)
    if draw.random() < 0.3:
        return str(one)
    return json.dumps(one, ensure_ascii=False) if not isinstance(one, dict) else "{ a = 1 }"
