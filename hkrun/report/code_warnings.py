"""Where the runs of a sweep are of different code, which may give other numbers."""

from collections.abc import Iterator

from hkrun.code_identity import Code
from hkrun.report.summary import Summary
from hkrun.report.wording import count, seeds
from hkrun.store import Record

_MOST_NAMED = 3  # cells of one code that a warning names; the rest is counted


def write_code_warnings(summary: Summary) -> Iterator[str]:
    """Names the runs of each code where there are several, and teachers of other code than their runs."""
    groups: list[tuple[Code, list[Record]]] = []
    for record in sorted(summary.records, key=lambda record: record.started_at):
        for code, records in groups:
            if record.code.same_numbers(code):
                records.append(record)
                break
        else:
            groups.append((record.code, [record]))
    if len(groups) > 1:
        parts = [_describe(code, records, summary) for code, records in groups]
        yield (
            f"Its runs are of different code, which may give other numbers: {'; '.join(parts)}. The sweep's "
            "command with --again makes anew what is not of the code that it runs with."
        )
    for teacher in (each for several in summary.teachers for each in several.records):
        others = [code for code, _ in groups if not code.same_numbers(teacher.code)]
        if others:
            yield (
                f"Teacher {teacher.teacher_id} is of other code ({teacher.code.numbers}) than runs of this "
                f"sweep ({', '.join(code.numbers for code in others)})."
            )


def _describe(code: Code, records: list[Record], summary: Summary) -> str:
    """How many runs are of a code, and which."""
    names = {cell.cell_id: cell.label for cell in reversed(summary.cells)}
    found: dict[str, list[int]] = {}
    for record in records:
        found.setdefault(names[record.cell_id], []).append(record.seed)
    told = [f"{name}, seeds {seeds(numbers)}" for name, numbers in found.items()]
    more = f" and {count(len(told) - _MOST_NAMED, 'more cell')}" if len(told) > _MOST_NAMED else ""
    return f"{count(len(records), 'run')} of {code.numbers} ({', '.join(told[:_MOST_NAMED])}{more})"
