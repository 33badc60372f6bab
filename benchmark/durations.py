"""Times for people."""

from __future__ import annotations

import re

UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}


def duration(seconds: float | None) -> str:
    """``3:05``, ``1:02:03``, or a dash for what is not known."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def parse_duration(text: str) -> float:
    """``90``, ``90s``, ``30min``, ``2h``, ``1h30min`` -> seconds. Raises AdlbenchError."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([a-z]*)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text or any(u not in UNITS for _, u in parts):
        from adlbench.benchmark.errors import AdlbenchError

        raise AdlbenchError(f"{text!r} is not a duration; write 90s, 30min, 2h or 1h30min")
    return sum(float(number) * UNITS[unit] for number, unit in parts)
