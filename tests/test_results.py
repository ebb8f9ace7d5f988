"""What results/ says follows from the numbers beside it, and what other pages quote of it is what it says."""

import io
import json
import re
from pathlib import Path

import pytest
from pyarrow import parquet as pq
from rich.console import Console

from hkrun.plans import stored_plans
from hkrun.report import find_studies, print_summary, publishing
from hkrun.report.results_index import render_index
from hkrun.store import open_store, write_study

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "results"
STUDIES = {folder.name: folder for folder in find_studies(RESULTS)}
# "digits, 20 seeds: 4.76, 4.75 % in the order below; S = 0.1, measured (DAY, PROCESSOR; results/...)"
CITED = re.compile(
    r"(?P<dataset>\w+), (?P<seeds>\d+) seeds: (?P<errors>[\d., and]+) % in the order below[^;]*?, measured "
    r"\((?P<day>[\d-]+), (?P<where>[^;]+); results/(?P<study>[\w-]+)\)"
)
# Of a study with too many cells to name: "all figures in results/..."
POINTED = re.compile(r"all figures in results/([\w-]+)")


def results_of(name):
    return json.loads((STUDIES[name] / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def summaries():
    """What each study's numbers say, computed when it is first asked for."""
    found = {}

    def summarise(name):
        if name not in found:
            found[name] = publishing.summarise_study(open_store(STUDIES[name]))
        return found[name]

    return summarise


@pytest.mark.usefixtures("undrawn_figures")
@pytest.mark.parametrize("name", STUDIES)
def test_a_report_is_what_its_numbers_say(name, summaries):
    """Figures are left out: drawing all takes minutes (the slow test below)."""
    expected = publishing.render_study(summaries(name))
    for file in ("report.md", "results.json"):
        assert (STUDIES[name] / file).read_text(encoding="utf-8") == expected[file].decode(), (
            "run `make results`"
        )
    figures = {path.name for path in STUDIES[name].glob("*.svg")}
    assert figures == {file for file in expected if file.endswith(".svg")}


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_figures_are_what_the_numbers_say(name, summaries):
    for file, content in publishing.render_study(summaries(name)).items():
        assert (STUDIES[name] / file).read_bytes() == content, file


@pytest.mark.parametrize("name", STUDIES)
def test_the_numbers_are_as_hkrun_writes_them(name):
    """Published again from its own folder, a study is the same: nothing was written by hand."""
    store = open_store(STUDIES[name])
    (stored,), _ = stored_plans(store)
    for file, content in write_study(publishing.collect_study(stored, store)).items():
        assert (STUDIES[name] / file).read_bytes() == content


def test_the_index_follows_from_the_studies():
    expected = render_index({name: results_of(name) for name in STUDIES}).decode()
    assert (RESULTS / "README.md").read_text(encoding="utf-8") == expected


def test_results_are_small():
    assert sum(path.stat().st_size for path in RESULTS.rglob("*") if path.is_file()) < 10_000_000


@pytest.mark.parametrize("name", STUDIES)
def test_nothing_tells_of_the_machines_folders(name):
    texts = [
        path.read_text(encoding="utf-8")
        for path in STUDIES[name].iterdir()
        if path.suffix in (".json", ".md")
    ]
    texts.append(str(pq.read_table(STUDIES[name] / "runs.parquet").to_pylist()))
    for text in texts:
        assert not re.search(r"(?<![\w.])/(home|root|tmp|mnt|usr|work|data)/", text)


def test_headers_of_search_spaces_quote_what_was_measured():
    for path in sorted((REPOSITORY / "search_spaces").glob("*.toml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        header = " ".join(" ".join(line.lstrip("# ") for line in lines if line.startswith("#")).split())
        pointed, quoted = POINTED.findall(header), list(CITED.finditer(header))
        assert len(pointed) + len(quoted) == header.count("results/"), f"{path.name}: cites in other words"
        for study in (*pointed, *(match["study"] for match in quoted)):
            assert study in STUDIES
            assert study.startswith(f"{path.stem}-"), path.name
        for match in quoted:
            results = results_of(match["study"])
            means = [cell["error_last"]["mean"] for cell in results["cells"]]
            assert re.findall(r"\d+\.\d+", match["errors"]) == [
                f"{mean:.2f}" for mean in means if mean is not None
            ]
            for cell in results["cells"]:
                runs = sum(len(cell[outcome]) for outcome in ("seeds", "failed", "diverged", "missing"))
                assert runs == int(match["seeds"])
            assert results["dataset"] == match["dataset"]
            assert results["conditions"]["Started (UTC)"].startswith(match["day"])
            assert results["conditions"]["Processor"] in match["where"]


def test_the_readme_shows_a_study_as_it_was_published(summaries):
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    console = Console(width=100, no_color=True, record=True, file=io.StringIO())
    print_summary(summaries("stability-digits"), console)
    shown = "\n".join(f"    {line}".rstrip() for line in console.export_text().rstrip().splitlines())
    assert shown in text
    (counted,) = re.findall(
        r"^\d+ stud.*$", (RESULTS / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert f"\n- {counted}\n" in text


def test_the_readme_says_how_far_errors_reach_with_and_without_distillation():
    errors = {
        cell["name"]: round(cell["error_last"]["mean"], 2) for cell in results_of("tables-digits")["cells"]
    }
    alone_pct = errors.pop("supervised learning")
    distilled = errors.values()
    text = " ".join((REPOSITORY / "README.md").read_text(encoding="utf-8").split())
    assert (
        f"{alone_pct:.2f} % trained alone, {min(distilled):.2f} to {max(distilled):.2f} % distilled" in text
    )
