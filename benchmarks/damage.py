"""Files damaged in the ways that disks, editors and strangers damage them; for ``benchmarks/fuzz.py``."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

ODD = (
    "nan",
    "-1",
    "1e400",
    "0",
    "null",
    "[]",
    "{}",
    '"x"',
    "1e15",
    "true",
    "[[[[[[[[1]]]]]]]]",
    "99999999999999999999",
)
"""What takes the place of a value in YAML, JSON or XML."""
TEXTS = (".yaml", ".json", ".xml", ".csv")


def damage(path: Path, draw: random.Random) -> str:
    """Damage a file in place; says how, for the record.

    Args:
        path: The file.
        draw: Where all choices come from.
    """
    content = path.read_bytes()
    ways = ["cut", "flip", "empty", "noise", "grown", "folder"]
    if path.suffix in TEXTS:
        ways += ["value"] * 8
    if path.suffix == ".onnx":
        ways += ["metadata"] * 4
    if path.suffix == ".safetensors":
        ways += ["header"] * 4
    way = draw.choice(ways)
    if way == "folder":
        path.unlink()
        path.mkdir()
    elif way in ("value", "metadata", "header"):
        path.write_bytes(_changed(content, way, draw))
    else:
        place = draw.randrange(max(1, len(content)))
        path.write_bytes(
            {
                "cut": content[:place],
                "flip": _flipped(content, draw),
                "empty": b"",
                "noise": draw.randbytes(min(len(content), 4096)),
                "grown": content + b"\0" * 2**20,
            }[way]
        )
    return f"{path.name}: {way}"


def _flipped(content: bytes, draw: random.Random) -> bytes:
    """Some bits the other way round; half of the time in the first kilobyte, where headers are."""
    changed = bytearray(content)
    end = min(len(changed), 1024) if draw.random() < 0.5 else len(changed)
    for _ in range(draw.choice((1, 4, 32)) if end else 0):
        changed[draw.randrange(end)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _changed(content: bytes, way: str, draw: random.Random) -> bytes:
    """One value of a text exchanged for an odd one; metadata and headers keep their length."""
    if way == "header":
        length = int.from_bytes(content[:8], "little")
        header = content[8 : 8 + length]
        found = list(re.finditer(rb"\d+|F32|I64|U8", header))
        if found:
            hit = draw.choice(found)
            other = draw.choice((b"9", b"0", b"-")) * len(hit[0])
            header = header[: hit.start()] + other + header[hit.end() :]
        return content[:8] + header + content[8 + length :]
    if way == "metadata":
        key = draw.choice((b"downsample_ratio", b"bits", b"model", b"size", b"dynamic", b"checkpoint"))
        at = content.rfind(key) + len(key) + 2
        return content[:at] + draw.choice((b"n", b"-", b"9", b"\xff")) * 3 + content[at + 3 :]
    found = list(re.finditer(rb"(?<=[:=,\[ \"])-?[\w.]+(?=[,\s\]\"}]|$)", content))
    if not found:
        return json.dumps([1]).encode()
    hit = draw.choice(found)
    return content[: hit.start()] + draw.choice(ODD).encode() + content[hit.end() :]
