"""The report of a sweep: its results as numbers, in the terminal, as HTML, Markdown, LaTeX, CSV and JSON.

published.py      what the paper published, and its claims
summary.py        what a report says, as data; error_curves.py holds the errors of its runs
aggregation.py    from the store to a summary
monitoring.py     when verdicts are read, and tests over all those looks
teaching.py       what the cells learned from
concluding.py     from cells to what the tests say
families.py       which tests are corrected together
comparing.py      paired comparisons, corrected within a family
questions.py      what a sequential study asks, and what of it is decided
claims.py         the verdicts on the paper's claims, and what would decide them
paper.py          the paper's tables beside what was measured
scans.py          the curves and grids of a search space with axes
look_wording.py   when verdicts were read, in sentences
wording.py        numbers as people read them; findings
cautions.py       what to know before believing the numbers
code_warnings.py  where runs are of different code
table.py          a table as rows of text; result_tables.py, paper_tables.py, run_tables.py fill them
drawing.py        the figures; picturing.py takes their pictures, in a second process too
documents.py      the files, from the templates, written only where they would say something else
kept_statistics.py  what the statistics of a large study gave, for its next report
latex.py          escapes
json_document.py  the document for scripts
study_pairing.py  which cells of two studies belong together; study_comparison.py compares them
comparison_forms.py  two studies in the terminal and as a document
publishing.py     whole studies as folders for a repository; results_index.py makes the index over them
answers.py        what stands first: the best cell, how sure that is; commands.py names the next command
terminal.py       answer, table, verdicts and warnings in the terminal
"""

from hkrun.report.aggregation import summarise
from hkrun.report.commands import describe_next, describe_price
from hkrun.report.comparison_forms import comparison_document, print_comparison
from hkrun.report.documents import drawing_ahead, render_report, renew_report, write_report
from hkrun.report.json_document import summary_document
from hkrun.report.kept_statistics import remembering_statistics
from hkrun.report.published import load_published
from hkrun.report.publishing import find_studies, publish_study, renew_studies, summarise_study
from hkrun.report.questions import describe_open, open_questions
from hkrun.report.study_comparison import compare_studies
from hkrun.report.study_pairing import ComparedStudy
from hkrun.report.summary import Summary
from hkrun.report.terminal import print_summary
