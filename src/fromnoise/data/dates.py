"""Dates as people write them."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime

DAY_FORMATS = ("%d-%b-%Y", "%d %B %Y", "%d %b %Y", "%B %d, %Y", "%b %d, %Y", "%B %d %Y", "%d.%m.%Y")
YEAR_FIRST = re.compile(r"([0-9]{4})(?:([-/.])([0-9]{1,2})\2([0-9]{1,2})|-([0-9]{2}))?(?![0-9])")  # 2001, 2001-07, 2001-07-05, 2001/7/5
EARLIEST_S = 1e7  # Unix times of 1970's first months are numbers that mean something else, mostly "none" (0, -1)


def parse_date(value: object) -> str | None:
    """ISO date of what a date field holds: a date or datetime, an ISO string, "2001/7/5", "05-Jul-2001", a year,
    20010705, a Unix time in s or ms.

    Of several dates separated by commas the first counts. None where nothing is recognised.
    """
    if isinstance(value, date):  # a datetime is one; a time of day says no date
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
            if abs(seconds) < EARLIEST_S:
                return None
            return datetime.fromtimestamp(seconds, UTC).date().isoformat()
        except (ValueError, OverflowError, OSError):
            return None
    text = str(value).strip().strip("[]'\"")
    if re.fullmatch(r"[0-9]{9,10}(\.[0-9]+)?|[0-9]{13}", text):  # a Unix time in s or ms: in csv all numbers are text
        return parse_date(float(text))
    if day := _day_of_digits(text):
        return day
    if match := YEAR_FIRST.match(text):
        parts = [part for part in (match[1], match[3] or match[5], match[4]) if part]
        with suppress(ValueError):  # 2001-99-99 is no date
            date(*(map(int, [*parts, 1, 1][:3])))
            return "-".join(part.zfill(2) for part in parts)
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
