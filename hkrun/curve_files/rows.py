"""The rows of a CSV, Parquet or JSON lines file, as data frames and spreadsheets write them."""

import csv
import json
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from hkrun.curve_files.numbering import numbered, quoted
from hkrun.curve_files.sources import refuse
from hkrun.errors import InputError

_SEPARATORS = (",", ";", "\t", "|")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
# What may be a thousand and may be one with three decimals.
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:[.,' \u00a0\u202f]\d{3})+")
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16, as spreadsheets save "Unicode text"
_START = 64  # bytes by which the formats are told apart


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a file.

    Attributes:
        form: "CSV", "Parquet" or "JSON lines".
        names: The names of all columns in their order, with those that there are twice.
        columns: The values by column.
        numbers: What an editor or a viewer calls each row, with `unit`: `line 7`.
    """

    form: str
    names: Sequence[str]
    columns: dict[str, list[object]]
    numbers: Sequence[int]
    unit: str


def read_rows(path: Path, known: Collection[str]) -> Rows:
    """Reads the rows of a file; those in which every field is empty are none.

    The content, not the name, tells the formats apart, and the `known` names of columns what separates the
    values.

    Raises:
        InputError: No such file, or no table.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_START)
        if not start:
            raise InputError(f"{path}: the file is empty")
        if start.startswith(b"PAR1"):
            rows = _read_parquet(path)
        elif start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"[")):
            rows = _read_json_lines(path)
        else:
            rows = _read_csv(path, start, known)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except (pa.ArrowException, csv.Error, UnicodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: is neither CSV (UTF-8, with column names), JSON lines nor Parquet: {reason}"
        ) from error
    if not {*rows.names} & {*known} and rows.names and all(map(_is_number, rows.names)):
        refuse(path, ["line 1: has numbers where the column names belong, such as seed,epoch,error_pct"])
    if not rows.names:
        refuse(path, ["there are no column names"])
    if not rows.numbers:
        refuse(path, ["there are no rows below the column names"])
    return rows


def _is_number(text: str) -> bool:
    return math.isfinite(read_number(text))


def _read_csv(path: Path, start: bytes, known: Collection[str]) -> Rows:
    encoding = "utf-16" if start.startswith(_BYTE_ORDER_MARKS) else "utf-8-sig"
    records, lines = [], []
    with path.open(newline="", encoding=encoding) as file:
        separator = _find_separator(file, known)
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
    _refuse_title(path, names, records, lines)
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
    return Rows(form="CSV", names=names, columns=columns, numbers=lines[1:], unit="line")


def _refuse_title(
    path: Path, names: Sequence[str], records: Sequence[Sequence[str]], lines: Sequence[int]
) -> None:
    """Refuses what comes before the column names: a title, a comment, a spreadsheet's `sep=;`."""
    below = "".join(records[1]) if len(records) > 1 else ""
    usual = ("seed", "epoch", "error_pct")
    if not {*names} & {*usual, "cell"} and all(name in below for name in usual):
        refuse(path, [f"line {lines[0]}: has none of the column names {','.join(usual)}, which come first"])


def _find_separator(lines: Iterable[str], known: Collection[str]) -> str:
    """The separator that gives the first line the most known names, then the most names; a comma in doubt."""
    first = next((line for line in lines if line.strip()), "")

    def count_names(separator: str) -> tuple[int, int]:
        fields = next(csv.reader([first], delimiter=separator, skipinitialspace=True), [])
        names = [name.strip() for name in fields]
        return len({*names, *(name.lower() for name in names)} & {*known}), len(names)

    return max(_SEPARATORS, key=count_names)


def _read_parquet(path: Path) -> Rows:
    table = pa.parquet.ParquetFile(path).read()
    columns = [_widen(column) for column in table.columns]
    kept = [row for row in range(table.num_rows) if any(column[row] is not None for column in columns)]
    by_name = {
        name: [column[row] for row in kept] for name, column in zip(table.column_names, columns, strict=True)
    }
    numbers = [row + 1 for row in kept]
    return Rows(form="Parquet", names=table.column_names, columns=by_name, numbers=numbers, unit="row")


def _widen(column: "pa.ChunkedArray") -> list[object]:
    values: list[object] = column.to_pylist()
    if pa.types.is_float32(column.type):
        return [None if value is None else widen(cast("float", value)) for value in values]
    return values


def widen(value: float) -> float:
    """The double that is written like a float32: 0.913, as text has it, not 0.9129999876022339."""
    return float(str(np.float32(value)))


def _read_json_lines(path: Path) -> Rows:
    records: list[dict[str, object]] = []
    lines = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict):
                refuse(path, [f"line {number}: not a JSON object; JSON lines have one on each line"])
            if any(value not in (None, "") for value in record.values()):
                records.append(record)
                lines.append(number)
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = {name: [record.get(name) for record in records] for name in names}
    return Rows(form="JSON lines", names=names, columns=columns, numbers=lines, unit="line")


def read_whole_numbers(rows: Rows, name: str, problems: list[str]) -> list[int]:
    """The whole numbers of a column; where some are none, that is a problem."""
    found = [_read_whole_number(value) for value in rows.columns[name]]
    wrong = [index for index, number in enumerate(found) if number is None]
    if wrong:
        where = numbered(rows.unit, [rows.numbers[index] for index in wrong])
        example = rows.columns[name][wrong[0]]
        grouped = isinstance(example, str) and _GROUPED.fullmatch(example.strip())
        hint = "; write it without a separator of thousands or decimals" if grouped else ""
        problems.append(f"{where}: {name} is no whole number, such as {quoted(example)}{hint}")
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
    except (TypeError, ValueError, OverflowError):
        return math.nan


def read_cell_names(rows: Rows, name: str, problems: list[str]) -> list[str]:
    """The cell of each row, from a column; where some have none, that is a problem."""
    names = ["" if value is None else str(value).strip() for value in rows.columns[name]]
    unnamed = [number for number, cell in zip(rows.numbers, names, strict=True) if not cell]
    if unnamed:
        problems.append(f"{numbered(rows.unit, unnamed)}: {name} is empty")
    odd = {number: cell for number, cell in zip(rows.numbers, names, strict=True) if not cell.isprintable()}
    if odd:  # it would reach the terminal
        example = next(iter(odd.values()))
        problems.append(
            f"{numbered(rows.unit, list(odd))}: {name} is no line of text, such as {quoted(example)}"
        )
    return names
