"""The report of a sweep: its results as numbers, in the terminal, as HTML and as Markdown.

published.py   what the paper published, and its claims
summary.py     what a report says, as data, and its JSON
reading.py     from the store to a summary
wording.py     numbers as people read them; warnings and findings
terminal.py    the table in the terminal
tables.py      the tables of the files, as rows of text
documents.py   the files
"""

from hkrun.report.documents import render_report, write_report
from hkrun.report.published import Claim, Published, PublishedRow, PublishedTable, load_published
from hkrun.report.reading import summarise
from hkrun.report.summary import CellSummary, Comparison, Summary, Teacher, Verdict
from hkrun.report.terminal import print_summary

__all__ = [
    "CellSummary",
    "Claim",
    "Comparison",
    "Published",
    "PublishedRow",
    "PublishedTable",
    "Summary",
    "Teacher",
    "Verdict",
    "load_published",
    "print_summary",
    "render_report",
    "summarise",
    "write_report",
]
