"""The safe codec's dates, times and time zones; see task/safe/codec.py.

Standard library only: the runner imports it inside the sandbox.
"""

from __future__ import annotations

import re
import sys
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from typing import Any

from p2p_ipython.task.safe.parts import Incoming, Unreadable, Unsupported, listed, texted, whole

_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,40}(/[A-Za-z0-9_+-]{1,40}){0,3}")
"""A zone's name is looked up among files: it must not lead anywhere else."""

_MICROSECOND = timedelta(microseconds=1)


def encode_zone(zone: tzinfo | None) -> Any:
    """Encode a fixed offset, or a zone by its name. Raises ``Unsupported``."""
    if zone is None:
        return None
    if type(zone) is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined] # what its pickle is made of
        return ["offset", offset // _MICROSECOND, *name]
    if zone.__class__.__module__.startswith("pytz") and getattr(zone, "zone", None):
        return ["pandas", str(zone.zone)]  # type: ignore[attr-defined] # pandas 2 makes its zones of names by itself
    module: Any = sys.modules.get("zoneinfo")
    key: str | None = getattr(zone, "key", None) if module is not None and type(zone) is module.ZoneInfo else None
    if key:  # a zone that was read from a file has none
        return ["zone", key]
    raise Unsupported(zone)


def decode_zone(parts: object) -> Any:
    """Return the zone; for one of pandas' own, its name. Raises ``Unreadable``."""
    if parts is None:
        return None
    kind, value, *name = listed(parts, 2, 3)
    if kind == "offset":
        offset = timedelta(microseconds=whole(value, -86_400_000_000, 86_400_000_000))
        return timezone(offset, *(texted(each, 100) for each in name))
    if kind not in ("zone", "pandas") or name or not _ZONE.fullmatch(texted(value, 100)):
        raise Unreadable("a time in it has an unknown kind of zone")
    if kind == "pandas":
        return value
    # Late: few values need it.
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(value)
    except (ZoneInfoNotFoundError, OSError, ValueError):
        raise Unreadable(f"the time zone {value!r} isn't known here") from None


def encode_datetime(moment: datetime) -> dict[str, Any]:
    """Encode a moment as its local time and its zone."""
    return {"!datetime": [moment.replace(tzinfo=None).isoformat(), encode_zone(moment.tzinfo), moment.fold]}


def encode_time(moment: time) -> dict[str, Any]:
    """Encode a time of day."""
    return {"!time": [moment.replace(tzinfo=None).isoformat(), encode_zone(moment.tzinfo), moment.fold]}


def encode_date(day: date) -> dict[str, Any]:
    """Encode a day."""
    return {"!date": day.isoformat()}


def encode_timedelta(duration: timedelta) -> dict[str, Any]:
    """Encode a duration."""
    return {"!timedelta": [duration.days, duration.seconds, duration.microseconds]}


def decode_datetime(_incoming: Incoming, args: object) -> datetime:
    """Return the moment. Raises ``ValueError``."""
    text, zone, fold = listed(args, 3)
    moment = datetime.fromisoformat(texted(text, 40))
    return moment.replace(tzinfo=_real(decode_zone(zone)), fold=whole(fold, 0, 1))


def decode_time(_incoming: Incoming, args: object) -> time:
    """Return the time of day. Raises ``ValueError``."""
    text, zone, fold = listed(args, 3)
    moment = time.fromisoformat(texted(text, 40))
    return moment.replace(tzinfo=_real(decode_zone(zone)), fold=whole(fold, 0, 1))


def decode_date(_incoming: Incoming, args: object) -> date:
    """Return the day. Raises ``ValueError``."""
    return date.fromisoformat(texted(args, 40))


def decode_timedelta(_incoming: Incoming, args: object) -> timedelta:
    """Return the duration. Raises ``ValueError`` and ``OverflowError``."""
    days, seconds, microseconds = listed(args, 3)
    return timedelta(whole(days), whole(seconds, 0, 86_400), whole(microseconds, 0, 1_000_000))


def _real(zone: Any) -> tzinfo | None:
    if zone is not None and not isinstance(zone, tzinfo):
        raise Unreadable("a time in it has a zone of pandas")
    return zone
