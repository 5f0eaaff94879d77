"""Numbers of bytes as people read them."""

BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def format_bytes(num_bytes: int) -> str:
    """Return a size with one decimal in the largest binary unit that fits: ``"1.5 KiB"``."""
    size, unit = float(num_bytes), 0
    # 1023.95 would round to "1024.0"
    while abs(size) >= 1023.95 and unit < len(BINARY_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{num_bytes} B" if unit == 0 else f"{size:.1f} {BINARY_UNITS[unit]}"


def format_pair(one: int, other: int) -> tuple[str, str]:
    """Return two sizes as text that differs whenever the sizes do."""
    texts = format_bytes(one), format_bytes(other)
    if one != other and texts[0] == texts[1]:
        return f"{one:,} B", f"{other:,} B"
    return texts
