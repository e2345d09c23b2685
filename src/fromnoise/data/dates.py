"""Dates as people write them."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime

DAY_FORMATS = ("%d-%b-%Y", "%d %B %Y", "%d %b %Y", "%B %d, %Y", "%b %d, %Y", "%B %d %Y", "%Y/%m/%d", "%d.%m.%Y")
ISO_DATE = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?(?=\D|$)")


def parse_date(value: object) -> str | None:
    """ISO date of what a date field holds: a date or datetime, an ISO string, "05-Jul-2001", a year,
    20010705, a Unix time in s or ms.

    Of several dates separated by commas the first counts. None where nothing is recognised.
    """
    if hasattr(value, "isoformat"):
        return value.isoformat()[:10]
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        if 1000 <= value <= 9999 and value == int(value):
            return f"{int(value)}"
        if 1e7 <= value < 1e8 and value == int(value) and (day := _day_of_digits(str(int(value)))):
            return day
        try:
            seconds = value / 1000 if abs(value) > 1e11 else value
            return datetime.fromtimestamp(seconds, UTC).date().isoformat()
        except (ValueError, OverflowError, OSError):
            return None
    text = str(value).strip().strip("[]'\"")
    if day := _day_of_digits(text):
        return day
    if match := ISO_DATE.match(text):
        year, month, day = (int(part or 1) for part in match.groups())
        with suppress(ValueError):  # 2001-99-99 is no date
            date(year, month, day)
            return "-".join(part for part in match.groups() if part)
    for candidate in (text, text.split(",")[0].strip(), text.split(" at ")[0]):
        for day_format in DAY_FORMATS:
            try:
                return datetime.strptime(candidate, day_format).date().isoformat()
            except ValueError:
                continue
    try:
        return parsedate_to_datetime(text).date().isoformat()  # "Thu, 05 Jul 2001 10:00:00 +0200"
    except (ValueError, TypeError, IndexError, OverflowError):  # the last: a day or an offset that no calendar has
        return None


def _day_of_digits(text: str) -> str | None:
    """ "2001-07-05" of "20010705". Of whole numbers that are such a day those are far commoner as days than as Unix times of 1970 to 1973."""
    if not re.fullmatch(r"[0-9]{8}", text):
        return None
    with suppress(ValueError):  # 20019999 is no date
        return date(int(text[:4]), int(text[4:6]), int(text[6:])).isoformat()
    return None
