"""The rows of a CSV or Parquet file: columns of values, read as data frames and spreadsheets write them."""

import csv
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from hkrun.config import nearest
from hkrun.curve_files.numbering import numbered
from hkrun.errors import InputError

REQUIRED = ("seed", "epoch", "error_pct")
CELL = "cell"
ONLY_CELL = "all"

_SEPARATORS = (",", ";", "\t", "|")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
# What may be a thousand and may be one with three decimals.
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:[.,' \u00a0\u202f]\d{3})+")
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16, as spreadsheets save "Unicode text"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a file: values by column, and what an editor or a viewer calls each row (`line 7`)."""

    columns: dict[str, list[object]]
    numbers: Sequence[int]
    unit: str


def refuse(path: Path, problems: Sequence[str]) -> None:
    """Reports what is wrong with a file, if anything is.

    Raises:
        InputError: Something is.
    """
    if problems:
        raise InputError("\n".join(f"{path}: {problem}" for problem in problems))


def read_rows(path: Path) -> Rows:
    """Reads the rows of a file; those in which every field is empty are none.

    The content, not the name, tells the formats apart, and the column names what separates the values.

    Raises:
        InputError: No such file, no table, or not all columns that there must be.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if not start:
            raise InputError(f"{path}: the file is empty")
        names, rows = _read_parquet(path) if start == b"PAR1" else _read_csv(path, start)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except (pa.ArrowException, csv.Error, UnicodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: is neither CSV (UTF-8, with column names) nor Parquet: {reason}"
        ) from error
    twice = [name for name in (*REQUIRED, CELL) if names.count(name) > 1]
    refuse(path, [f"there is more than one column {name!r}" for name in twice])
    missing = [name for name in REQUIRED if name not in rows.columns]
    if len(missing) == len(REQUIRED) and names and all(math.isfinite(read_number(name)) for name in names):
        refuse(path, [f"line 1: has numbers where the column names belong: {','.join(REQUIRED)}"])
    refuse(path, [f"no column {name!r}{suggest_column(name, rows.columns)}" for name in missing])
    if not rows.numbers:
        refuse(path, ["there are no rows below the column names"])
    return rows


def _read_csv(path: Path, start: bytes) -> tuple[list[str], Rows]:
    encoding = "utf-16" if start.startswith(_BYTE_ORDER_MARKS) else "utf-8-sig"
    records, lines = [], []
    with path.open(newline="", encoding=encoding) as file:
        separator = _find_separator(file)
        file.seek(0)
        reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
        for record in reader:
            if any(field.strip() for field in record):
                records.append(record)
                lines.append(reader.line_num)
    names = [name.strip() for name in records[0]] if records else []
    while names and not names[-1]:  # a separator at the end of the line
        names.pop()
    for record in records:
        while len(record) > len(names) and not record[-1].strip():
            record.pop()
    below = "".join(records[1]) if len(records) > 1 else ""
    if not {*names} & {*REQUIRED, CELL} and all(name in below for name in REQUIRED):
        known = ",".join(REQUIRED)  # a title, a comment, what names a separator for a spreadsheet
        refuse(path, [f"line {lines[0]}: has none of the column names {known}, which come first"])
    ragged = [line for line, record in zip(lines, records, strict=True) if len(record) != len(names)]
    if ragged:
        hint = ""
        if separator == "," and any(len(record) > len(names) for record in records):
            hint = "; a value with a comma in it needs quotes, or ; between the values"
        refuse(
            path,
            [f"{numbered('line', ragged)}: not as many values as there are column names, {len(names)}{hint}"],
        )
    columns: dict[str, list[object]] = {
        name: [record[index] for record in records[1:]] for index, name in enumerate(names)
    }
    return names, Rows(columns=columns, numbers=lines[1:], unit="line")


def _find_separator(lines: Iterable[str]) -> str:
    """The separator by which the first line has the most of the names that it must have; a comma in doubt."""
    first = next((line for line in lines if line.strip()), "")

    def count_known(separator: str) -> int:
        names = next(csv.reader([first], delimiter=separator, skipinitialspace=True), [])
        return len({name.strip() for name in names} & {*REQUIRED, CELL})

    found = max(_SEPARATORS, key=count_known)
    return found if count_known(found) else ","


def _read_parquet(path: Path) -> tuple[list[str], Rows]:
    table = pa.parquet.ParquetFile(path).read()
    columns = [column.to_pylist() for column in table.columns]
    kept = [row for row in range(table.num_rows) if any(column[row] is not None for column in columns)]
    by_name = {
        name: [column[row] for row in kept] for name, column in zip(table.column_names, columns, strict=True)
    }
    return table.column_names, Rows(columns=by_name, numbers=[row + 1 for row in kept], unit="row")


def suggest_column(name: str, present: Iterable[str]) -> str:
    """What may have been meant by a column that is not there."""
    others = [other for other in present if other not in (*REQUIRED, CELL)]
    return nearest(name, others) or (f"; the others are {', '.join(map(repr, others))}" if others else "")


def read_whole_numbers(rows: Rows, name: str, problems: list[str]) -> list[int]:
    """The whole numbers of a column; where some are none, that is a problem."""
    found = [_read_whole_number(value) for value in rows.columns[name]]
    wrong = [index for index, number in enumerate(found) if number is None]
    if wrong:
        where = numbered(rows.unit, [rows.numbers[index] for index in wrong])
        example = rows.columns[name][wrong[0]]
        grouped = isinstance(example, str) and _GROUPED.fullmatch(example.strip())
        hint = "; write it without a separator of thousands or decimals" if grouped else ""
        problems.append(f"{where}: {name} is no whole number, such as {example!r}{hint}")
    return [number for number in found if number is not None]


def _read_whole_number(value: object) -> int | None:
    if isinstance(value, str):
        if _GROUPED.fullmatch(value.strip()) or "_" in value:  # which Python takes for a separator of digits
            return None
        try:
            return _read_whole_number(int(value))
        except ValueError:
            pass
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 2**63 else None
    number = read_number(value)  # 3.0, as data frames write whole numbers
    return int(number) if number.is_integer() and abs(number) < 2**53 else None


def read_number(value: object) -> float:
    """The value as a number, or NaN where it is none.

    A comma is a decimal one: an error from 0 to 100 has no thousands.
    """
    if value is None or isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        return math.nan
    if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value.strip()):
        value = value.replace(",", ".")
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def read_cell_names(rows: Rows, problems: list[str]) -> list[str]:
    """The cell of each row; where some have none, that is a problem."""
    if CELL not in rows.columns:
        return [ONLY_CELL] * len(rows.numbers)
    names = ["" if value is None else str(value).strip() for value in rows.columns[CELL]]
    unnamed = [number for number, name in zip(rows.numbers, names, strict=True) if not name]
    if unnamed:
        problems.append(f"{numbered(rows.unit, unnamed)}: {CELL} is empty")
    odd = {number: name for number, name in zip(rows.numbers, names, strict=True) if not name.isprintable()}
    if odd:  # it would reach the terminal
        example = next(iter(odd.values()))
        problems.append(f"{numbered(rows.unit, list(odd))}: {CELL} is no line of text, such as {example!r}")
    return names
