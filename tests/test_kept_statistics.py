"""What a large study's statistics gave is found by a digest of the numbers, and is the same to the bit."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from sweep_example import fill_store, make_sweep, put_run
from test_import_cost import modules_loaded_by

from hkrun import stats
from hkrun.errors import StoreError
from hkrun.plans import save_plan
from hkrun.report import kept_statistics, renew_report, summarise, summary_document
from hkrun.report.documents import RECEIPT_FILE
from hkrun.report.kept_statistics import STATISTICS_FILE
from hkrun.store import open_store


def compare(generator_seed=1, window=6, sd=0.5):
    generator = np.random.default_rng(3)
    first, second = (generator.normal(5, spread, (30, 9)) for spread in (0.4, sd))
    return stats.compare_stability(
        first, second, window=window, generator=np.random.default_rng(generator_seed)
    )


@pytest.fixture
def counted(monkeypatch):
    """How often permutations are drawn."""
    calls = []
    for name in ("stability", "errors"):
        module = sys.modules[f"hkrun.stats.{name}"]
        draw = module.swaps
        monkeypatch.setattr(module, "swaps", lambda *args, draw=draw: calls.append(1) or draw(*args))
    return calls


def test_the_same_question_is_computed_once_and_another_anew(counted):
    with stats.remembering(stats.Memory()):
        first = compare()
        assert compare() == first
        assert len(counted) == 1
        assert len({compare(), compare(generator_seed=2), compare(window=5), compare(sd=0.6)}) == 4
        assert len(counted) == 4
    assert compare() == first
    assert len(counted) == 5, "nothing is remembered outside of the block"


def test_a_remembered_statistic_leaves_the_generator_as_a_computed_one():
    values = np.random.default_rng(0).normal(0, 1, (2, 21))

    def draw():
        generator = np.random.default_rng(7)
        return stats.paired_difference(*values, generator=generator), generator.random()

    alone = draw()
    with stats.remembering(stats.Memory()):
        assert draw() == draw() == alone


def test_what_is_dumped_and_loaded_has_the_very_bits():
    errors_pct = np.random.default_rng(1).normal(5, 1, (12, 20))

    def ask():
        return (
            stats.analyse_stability(errors_pct, window=7, generator=np.random.default_rng(1)),
            stats.analyse_pair_stability(errors_pct, window=7),
            stats.compare_pair_stability(errors_pct, errors_pct[:, ::-1], window=7),
            stats.effect_size(errors_pct[:, 0]),
            stats.pairs_for_difference(0.1),
            stats.pairs_for_difference(0.0001),
        )

    alone, memory = ask(), stats.Memory()
    with stats.remembering(memory):
        ask()
    loaded = stats.Memory()
    loaded.load(memory.dump())
    assert loaded.given.keys() == memory.used
    with stats.remembering(loaded):
        assert ask() == alone
    assert loaded.given.keys() == memory.used, "nothing was computed"


@pytest.mark.parametrize(
    "wrong", [[], None, [1], {"no": 1}, [{"Nothing": {}}, None], [{"Stability": {}}, None]]
)
def test_an_entry_that_is_not_understood_is_computed_anew(wrong):
    expected, memory = compare(), stats.Memory()
    with stats.remembering(memory):
        compare()
    (key,) = memory.given
    memory.given[key] = wrong
    with stats.remembering(memory):
        assert compare() == expected


# --- of a study ---------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A finished study that counts as large, and its store."""
    monkeypatch.setattr(kept_statistics, "LEAST_RUNS", 10)
    sweep, store = make_sweep(num_cells=3, num_seeds=15), open_store(tmp_path)
    fill_store(store, sweep)
    save_plan(store, sweep)
    return sweep, store


def document(sweep, store):
    return json.dumps(summary_document(summarise(sweep, store)))


def test_the_next_report_of_a_study_says_the_same_without_the_parts_of_scipy_that_it_was_computed_with(study):
    _, store = study
    report = (
        "from hkrun.report import kept_statistics\nkept_statistics.LEAST_RUNS = 10\n"
        "from hkrun.cli.program import call\n"
        f"call(['report', 'stability', '--store', {store.place!r}])"
    )
    first, again = modules_loaded_by(report), modules_loaded_by(report)
    parts = {"scipy.special", "scipy.optimize", "scipy.interpolate", "matplotlib", "jinja2"}
    assert (first & parts, again & parts) == (parts, set())


def test_a_block_within_one_of_the_same_study_is_part_of_it(study):
    sweep, store = study
    folder = store.sweep_folder(sweep.name, sweep.dataset)
    with kept_statistics.remembering_statistics(sweep, store):
        summarise(sweep, store)
        assert STATISTICS_FILE not in store.names(folder)
        stats.nominal_level((20, 28))
    kept = store.read(folder, STATISTICS_FILE)
    summarise(sweep, store)
    assert store.read(folder, STATISTICS_FILE) == kept, "nothing is new, and nothing dropped for it"


def break_off(end, study, ask):
    with kept_statistics.remembering_statistics(*study):
        ask()
        raise end


@pytest.mark.parametrize("end", [BrokenPipeError, KeyboardInterrupt])
def test_a_report_that_breaks_off_keeps_what_it_had_computed(study, counted, end):
    sweep, store = study
    with pytest.raises(end):
        break_off(end, study, lambda: document(sweep, store))
    assert counted
    counted.clear()
    document(sweep, store)
    assert not counted


def test_a_report_that_breaks_off_drops_nothing_that_it_had_not_come_to(study, counted):
    sweep, store = study
    first = document(sweep, store)
    with pytest.raises(BrokenPipeError):
        break_off(BrokenPipeError, study, compare)
    counted.clear()
    with kept_statistics.remembering_statistics(sweep, store):
        assert document(sweep, store) == first
        compare()
    assert not counted


def test_a_store_that_is_gone_does_not_hide_why_a_report_broke_off(study, monkeypatch):
    def fail(*_):
        raise StoreError("the store is gone")

    def lose_the_store():
        compare()
        monkeypatch.setattr(type(study[1]), "names", fail)

    with pytest.raises(KeyboardInterrupt):
        break_off(KeyboardInterrupt, study, lose_the_store)


def test_a_statistic_that_was_refused_keeps_no_other_from_being_kept(study, counted):
    sweep, store = study
    with kept_statistics.remembering_statistics(sweep, store):
        with pytest.raises(ValueError, match="the window is 0"):
            compare(window=0)
        compare()
    counted.clear()
    with kept_statistics.remembering_statistics(sweep, store):
        compare()
    assert not counted


def test_the_next_report_computes_nothing_and_says_the_same(study, counted):
    first = document(*study)
    assert counted
    counted.clear()
    assert document(*study) == first
    assert not counted


def test_a_run_that_changed_changes_what_is_compared_with_it_alone(study, counted):
    sweep, store = study
    first = document(sweep, store)
    whole = len(counted)
    counted.clear()
    put_run(store, sweep.cells[2], 3, curves=None, status="failed", error_last_pct=None, traceback="")
    changed = document(sweep, store)
    assert changed != first
    assert 0 < len(counted) < whole
    folder = store.sweep_folder(sweep.name, sweep.dataset)
    store.commit(folder, {}, keep=[name for name in store.names(folder) if name != STATISTICS_FILE])
    assert document(sweep, store) == changed


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"makers": "of other code", "statistics": "{}"}', b"\xff"]
)
def test_statistics_that_are_damaged_or_of_other_code_are_computed_anew(study, content, counted):
    sweep, store = study
    first, folder = document(sweep, store), store.sweep_folder(sweep.name, sweep.dataset)
    kept = store.read(folder, STATISTICS_FILE)
    store.commit(folder, {STATISTICS_FILE: content}, keep=None)
    counted.clear()
    assert document(sweep, store) == first
    assert counted
    assert store.read(folder, STATISTICS_FILE) == kept
    (store.local_path / folder / STATISTICS_FILE).write_bytes(b"damaged")
    assert document(sweep, store) == first


def test_a_small_study_keeps_no_statistics(tmp_path):
    sweep, store = make_sweep(), open_store(tmp_path)
    fill_store(store, sweep)
    save_plan(store, sweep)
    summarise(sweep, store)
    assert STATISTICS_FILE not in store.names(store.sweep_folder(sweep.name, sweep.dataset))


def test_a_study_that_was_never_started_gets_no_folder(study):
    sweep, store = study
    other = dataclasses.replace(sweep, name="other")
    summarise(other, store)
    assert store.sweep_folders() == [store.sweep_folder(sweep.name, sweep.dataset)]


@pytest.mark.usefixtures("undrawn_figures")
def test_a_report_that_is_there_is_not_made_again_and_one_of_other_code_is(study, monkeypatch):
    sweep, store = study
    summary = summarise(sweep, store)
    paths = renew_report(summary, store)
    drawn = []
    monkeypatch.setattr("hkrun.report.documents.render_report", lambda _: drawn.append(1) or {})
    assert renew_report(summary, store).keys() == paths.keys()
    assert not drawn
    monkeypatch.setattr("hkrun.report.documents.describe_makers", lambda: "other code")
    renew_report(summary, store)
    assert drawn


def change_record(cell):
    *others, last = cell.records
    return dataclasses.replace(cell, records=(*others, dataclasses.replace(last, resumed=1)))


def change_order(cell):
    return dataclasses.replace(cell, records=cell.records[::-1])


def change_error(cell):
    errors = cell.error_pct[:].copy()
    errors[3, 0] += 0.1
    return dataclasses.replace(cell, error_pct=errors)


@pytest.mark.usefixtures("undrawn_figures")
@pytest.mark.parametrize("change", [change_record, change_order, change_error])
def test_a_report_is_of_other_content_when_any_run_of_a_cell_is_another(study, change):
    sweep, store = study
    summary, folder = summarise(sweep, store), store.sweep_folder(sweep.name, sweep.dataset)

    def digest(of):
        renew_report(of, store)
        return json.loads(store.read(folder, RECEIPT_FILE))["content"]

    first, *others = summary.cells
    changed = dataclasses.replace(summary, cells=(change(first), *others))
    assert digest(changed) != digest(summary) == digest(summarise(sweep, store))
