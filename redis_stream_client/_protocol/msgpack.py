"""MessagePack, as far as ``cmsgpack`` writes it for lists of strings: scripts pack long lists with it."""

_ARRAYS = {0xDC: 2, 0xDD: 4}
_STRINGS = {0xD9: 1, 0xDA: 2, 0xDB: 4}


def unpack(packed: bytes) -> list[bytes] | None:
    """The strings; None if this is anything but one array of strings."""
    found = _head(packed, 0, 0x90, 0x0F, _ARRAYS)
    if found is None:
        return None
    count, at = found
    words: list[bytes] = []
    for _ in range(count):
        found = _head(packed, at, 0xA0, 0x1F, _STRINGS)
        if found is None:
            return None
        size, start = found
        at = start + size
        if at > len(packed):
            return None
        words.append(packed[start:at])
    return words if at == len(packed) else None


def _head(packed: bytes, at: int, fixed: int, mask: int, sized: dict[int, int]) -> tuple[int, int] | None:
    """The length of the value at `at`, and where its content begins."""
    kind = packed[at] if at < len(packed) else 0
    if kind & ~mask == fixed:
        return kind & mask, at + 1
    width = sized.get(kind)
    if width is None or at + 1 + width > len(packed):
        return None
    return int.from_bytes(packed[at + 1 : at + 1 + width], "big"), at + 1 + width
