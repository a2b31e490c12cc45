"""One long series of measurements in columns, cut into splits by time."""

import bisect
import datetime
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from absl import logging

from recattn_jax.data.builders import RecordsBuilder
from recattn_jax.data.readers.files import File, Path, open_file, read
from recattn_jax.data.readers.series import numbers
from recattn_jax.data.records import SPLITS, TABLE, Content, Record, Source
from recattn_jax.errors import UserError


class RecattnTable(RecordsBuilder):
    """One series of measurements; a split is a stretch of it."""

    about = "A series of measurements at growing times."
    fields = TABLE


def table(
    path: Path,
    data_dir: Path,
    time: str,
    splits: Mapping[str, int | str],
    columns: Sequence[str] = (),
) -> Source:
    r"""A series from a table with commas whose first line names the columns.

    Args:
        path: a UTF-8 file; packed where its name ends in .gz.
        data_dir: where prepared sets are kept.
        time: the name of the column that holds times in ISO 8601, each later than the one before.
        splits: "train" and, in the order of time, "validation" and "test": how many lines a split
            has, or the time (ISO 8601) before which it ends. What follows the last is not used.
        columns: the names of those to read; all but that of time where there are none.

    Returns:
        One record a split: "columns", their names; "times"; and "series", float32[N, D].

    Raises:
        UserError: names file, line and fault: no such column, another number of values than names,
            a value that is missing or no finite number, a time that is missing, no time, or not
            later than the one before; splits that the lines do not fill.
        StorageError: if `data_dir` cannot be written.

    >>> from pathlib import Path
    >>> _ = Path("load.csv").write_text("day,load\n2020-01-01,1\n2020-01-02,2\n2020-01-03,3\n")
    >>> source = table("load.csv", "data", time="day", splits={"train": 2, "validation": 1})
    >>> source.splits["train"][0]["series"].tolist()
    [[1.0], [2.0]]
    """
    file = read(path)
    if "train" not in splits or set(splits) - set(SPLITS):
        raise UserError(f"splits: expected train, validation, test; found {', '.join(splits)}")
    ends = [(split, splits[split]) for split in SPLITS if split in splits]
    for split, end in ends:
        if isinstance(end, bool) or not (isinstance(end, int) or _is_time(end)):
            raise UserError(
                f"splits: {split} is {end!r}, expected a number of lines or a time such as"
                " 2016-07-01"
            )

    def parse() -> Content:
        return _cut(file, *_parsed(file, time, columns), ends)

    settings = (time, *columns, *(f"{split} {end}" for split, end in ends))
    return open_file(RecattnTable, file, parse, data_dir, 0.0, settings)


def recent(data: bytes, columns: Sequence[str], count: int) -> tuple[str, list[str], np.ndarray]:
    r"""The last lines of a table, to forecast what comes after them.

    Args:
        data: the table, of the same form as for `table`, with one column besides `columns`, of
            times.
        columns: the names of those to read.
        count: how many lines are needed.

    Returns:
        The name of the column of times; all times; and float32 `[N, D]`, N the count.

    Raises:
        UserError: as for `table`, calling it stdin; or there are too few lines.

    >>> recent(b"day,load\n2020-01-01,1\n2020-01-02,2\n", ["load"], 1)[2].tolist()
    [[2.0]]
    """
    file = File(pathlib.Path("stdin"), data)
    names = [name.strip() for name in file.lines()[0].split(",")]
    others = [name for name in names if name not in columns]
    if len(others) != 1:
        file.fault(1, f"expected {', '.join(columns)} and one column of times, found {names}")
    _, times, values = _parsed(file, others[0], columns)
    needed = max(count, 2)  # of times, to know how far they are from each other
    if len(values) < needed:
        file.fault(len(values) + 1, f"the end, after {len(values)} lines of values; needs {needed}")
    return others[0], times, values[-count:]


def later(times: Sequence[str], count: int) -> list[str]:
    """The times that come next, where all are as far from each other, or whole months.

    Args:
        times: two or more, each later than the one before.
        count: how many.

    Returns:
        `count` times; +1, +2 and so on where `times` do not say when the next ones are.

    >>> later(["2020-01-01", "2020-01-02"], 2)
    ['2020-01-03', '2020-01-04']
    """
    moments = [datetime.datetime.fromisoformat(text) for text in times]
    last, ahead = moments[-1], range(1, count + 1)
    distances = {after - before for before, after in itertools.pairwise(moments)}
    months = {_months(after) - _months(before) for before, after in itertools.pairwise(moments)}
    days = {(moment.day, moment.timetz()) for moment in moments}
    if len(months) == len(days) == 1 and last.day <= 28:  # which every month has
        (apart,) = months
        following = _calculated(
            lambda number: _in_month(last, _months(last) + number * apart), ahead
        )
    elif len(distances) == 1:
        (distance,) = distances
        following = _calculated(lambda number: last + number * distance, ahead)
    else:
        following = []
    if not following:
        return [f"+{number}" for number in ahead]
    if all(len(text) == len("2020-01-01") for text in times):
        return [str(moment.date()) for moment in following]
    separator = "T" if "T" in times[-1] else " "
    return [moment.isoformat(separator) for moment in following]


def _calculated(
    moment: Callable[[int], datetime.datetime], ahead: Iterable[int]
) -> list[datetime.datetime]:
    """Moments; none where one is after the year 9999."""
    try:
        return [moment(number) for number in ahead]
    except (OverflowError, ValueError):
        return []


def _months(moment: datetime.datetime) -> int:
    return 12 * moment.year + moment.month - 1


def _in_month(moment: datetime.datetime, months: int) -> datetime.datetime:
    return moment.replace(year=months // 12, month=months % 12 + 1)


def _parsed(
    file: File, time: str, columns: Sequence[str]
) -> tuple[list[str], list[str], np.ndarray]:
    """The names of the columns, the times, and the values, float32[N, D]."""
    lines = file.lines()
    names = [name.strip() for name in lines[0].split(",")]
    wanted = list(columns) or [name for name in names if name != time]
    for name in (time, *wanted):
        if names.count(name) != 1:
            file.fault(1, f"expected one column named {name!r}, found {', '.join(names)}")
    at, places = names.index(time), [names.index(name) for name in wanted]
    times: list[str] = []
    rows: list[list[float]] = []
    for number, line in enumerate(lines[1:], 2):
        fields = line.split(",")
        if len(fields) != len(names):
            file.fault(number, f"{len(fields)} values, expected {len(names)}, as in the first line")
        times.append(_time(file, number, fields[at].strip()))
        if _aware(times[-1]) != _aware(times[0]):
            file.fault(
                number,
                f"{time} {times[-1]!r} and {times[0]!r}: give all an offset from UTC, or none",
            )
        if len(times) > 1 and _moment(times[-1]) <= _moment(times[-2]):
            file.fault(
                number, f"{time} {times[-1]!r} is not later than {times[-2]!r}; sort the lines"
            )
        rows.append(
            [numbers(file, number, [fields[p]], f"column {names[p]!r}, ")[0] for p in places]
        )
    if not rows:
        file.fault(1, "no values follow the names of the columns")
    return wanted, times, np.array(rows, np.float32)


def _time(file: File, number: int, text: str) -> str:
    try:
        _moment(text)
    except ValueError:
        file.fault(
            number, f"{text!r:.40} is no time; write it as in 2016-07-01 or 2016-07-01 00:00:00"
        )
    return text


def _aware(text: str) -> bool:
    return datetime.datetime.fromisoformat(text).tzinfo is not None


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(_moment(value))
    except ValueError:
        return False


@functools.lru_cache(maxsize=2)
def _moment(text: str) -> datetime.datetime:
    """A time; without an offset from UTC it is taken as one of UTC, and keeps the order."""
    moment = datetime.datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def _cut(
    file: File,
    names: list[str],
    times: list[str],
    values: np.ndarray,
    ends: Sequence[tuple[str, int | str]],
) -> Content:
    splits: dict[str, list[Record]] = {}
    moments = [_moment(text) for text in times]
    start = 0
    for split, until in ends:
        if isinstance(until, int):
            end = start + until
        else:
            if _aware(until) != _aware(times[0]):
                raise UserError(
                    f"splits: {split} ends at {until!r}, but the times are like {times[0]!r}: give"
                    " all an offset from UTC, or none"
                )
            end = bisect.bisect_left(moments, _moment(until))
        if not start < end <= len(values):
            raise UserError(
                f"{file.path}: {split} would be lines {start + 2} to {end + 1}, but values are in"
                f" lines 2 to {len(values) + 1}; change the splits"
            )
        stretch = {"columns": names, "times": times[start:end], "series": values[start:end]}
        splits[split] = [stretch]
        start = end
    if start < len(values):
        logging.info("%s: %d lines after %s are not used", file.path, len(values) - start, split)
    return splits
