"""How many runs train together: the rules, and the measurement that a user can ask for."""

import json

import pytest
from test_plan import ALONE, L_B, L_IS, MEASURED, make_sweep, put

from hkrun.config import cell_from_values, cell_id
from hkrun.plan import choose_sizes, kept_sizes, make_plan, save_plan, why_alone
from hkrun.spaces import load_sweep
from hkrun.store import open_store
from hkrun.sweep import packing

EVIDENCE = {"pack_cpu": {"value": 8, "label": MEASURED}}


def packs_of(plan):
    return [(pack.name, pack.seeds) for pack in plan.packs]


def choose(sweep, *, slots=1, workers=1, device="cpu", **options):
    return choose_sizes(sweep, workers=workers, slots=slots, device=device, **options)


def test_packs_take_turns_across_the_cells():
    sizes = {cell_id(L_B): 2, cell_id(L_IS): 3}
    plan = make_plan(make_sweep(seeds=range(5)), None, sizes=sizes)
    assert packs_of(plan) == [
        ("L_b", (0, 1)),
        ("L_is", (0, 1, 2)),
        ("L_b", (2, 3)),
        ("L_is", (3, 4)),
        ("L_b", (4,)),
    ]
    assert plan.num_trials == plan.document()["trials"] == 5
    assert plan.num_to_run == 10


def test_which_seeds_go_together_does_not_depend_on_those_that_are_done(tmp_path):
    store = open_store(tmp_path)
    for seed, status in ((0, "finished"), (3, "diverged"), (4, "failed")):
        put(store, L_B, seed, status)
    plan = make_plan(make_sweep([("L_b", L_B)], seeds=range(6)), store, sizes={cell_id(L_B): 3})
    assert packs_of(plan) == [("L_b", (1, 2)), ("L_b", (4, 5))]


def test_the_longest_pack_bounds_the_estimate():
    evidence = {"seconds_per_run": {"value": 3.0, "label": MEASURED}}
    sweep = make_sweep([("alone", ALONE)], seeds=range(8), evidence=evidence)
    plan = make_plan(sweep, None, slots=4, sizes={cell_id(ALONE): 8})
    assert plan.estimate.seconds == 8 * 6.0  # ten epochs of the recipe's five
    assert make_plan(sweep, None, slots=4, sizes={cell_id(ALONE): 2}).estimate.seconds == 2 * 6.0


@pytest.mark.parametrize(
    ("values", "workers", "reason"),
    [
        ({}, 1, ""),
        ({}, 2, "several workers"),
        ({"student.network": "resnet-18"}, 1, "torchvision"),
        ({"dataset": "imagenet"}, 1, "decoded"),
    ],
)
def test_what_cannot_be_packed_says_why(values, workers, reason):
    found = why_alone(cell_from_values(values), workers=workers)
    assert reason in found
    assert bool(found) == bool(reason)


def test_a_network_of_the_user_s_own_trains_alone(tmp_path, monkeypatch):
    (tmp_path / "pack_nets.py").write_text(
        "import torch\n\nclass Net(torch.nn.Module):\n    widths = (4, 4, 4)\n    stem_width = 4\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    cell = cell_from_values({"student.network": "pack_nets:Net", "method": "supervised"})
    assert "pack_nets:Net" in why_alone(cell, workers=1)


def test_a_new_sweep_takes_what_its_recipe_has_measured_for_its_networks():
    wide = cell_from_values({"student.network": "preact-32"})
    sweep = make_sweep([("L_b", L_B), ("wide", wide)], seeds=range(20), evidence=EVIDENCE)
    assert choose(sweep) == {cell_id(L_B): 8, cell_id(wide): 1}
    assert choose(sweep, device="cuda") == {cell_id(L_B): 1, cell_id(wide): 1}
    assert set(choose(make_sweep(seeds=range(20))).values()) == {1}


@pytest.mark.parametrize(("slots", "size"), [(1, 8), (4, 8), (6, 7), (10, 4), (40, 1), (400, 1)])
def test_no_slot_stays_idle_for_larger_packs(slots, size):
    sweep = make_sweep(seeds=range(20), evidence=EVIDENCE)  # of two cells
    assert set(choose(sweep, slots=slots).values()) == {size}


def test_a_wish_comes_before_what_was_begun_and_that_before_the_recipe():
    sweep = make_sweep([("L_b", L_B), ("L_is", L_IS)], seeds=range(20), evidence=EVIDENCE)
    kept = {cell_id(L_B): 5}
    assert choose(sweep, kept=kept) == {cell_id(L_B): 5, cell_id(L_IS): 8}
    assert set(choose(sweep, kept=kept, wanted=10).values()) == {10}
    assert set(choose(sweep, kept=kept, wanted=100).values()) == {20}  # there are no more seeds
    assert choose(sweep, kept=kept, wanted={cell_id(L_IS): 2}) == {cell_id(L_B): 5, cell_id(L_IS): 2}
    assert set(choose(sweep, workers=2, kept=kept, wanted=10).values()) == {1}


def test_the_store_keeps_the_sizes_of_a_sweep_for_the_seeds_that_it_began_with(tmp_path):
    store, sweep = open_store(tmp_path), make_sweep(seeds=range(20))
    assert kept_sizes(store, sweep) == {}
    save_plan(store, sweep, workers=1, sizes={cell_id(L_B): 5})
    assert kept_sizes(store, sweep) == {cell_id(L_B): 5}
    assert kept_sizes(store, make_sweep(seeds=range(30))) == {}


def test_a_run_s_share_of_a_pack_is_estimated_from_packs(tmp_path):
    evidence = {
        "seconds_per_run": {"value": 3.0, "label": MEASURED},
        "seconds_per_packed_run": {"value": 0.5, "label": MEASURED},
    }
    sweep = make_sweep([("alone", ALONE)], seeds=range(4), evidence=evidence)
    assert make_plan(sweep, None).estimate.seconds == 4 * 6.0  # ten epochs of the recipe's five
    assert make_plan(sweep, None, sizes={cell_id(ALONE): 2}).estimate.seconds == 4 * 1.0
    store = open_store(tmp_path)
    put(store, ALONE, 0, seconds=7.0, pack=(0,))
    put(store, ALONE, 1, seconds=2.0, pack=(1, 9))
    assert make_plan(sweep, store).estimate.seconds == 2 * 7.0
    assert make_plan(sweep, store, sizes={cell_id(ALONE): 4}).estimate.seconds == 2 * 2.0


def test_the_estimate_says_where_the_teacher_runs_live():
    vid = cell_from_values({"knowledge.form": "vid", "loss.lambda_2": 0.0, "student.epochs": 10})
    evidence = {"seconds_per_run": {"value": 3.0, "label": MEASURED}}
    live = make_plan(make_sweep([("vid", vid)], evidence=evidence), None).estimate
    assert "longer where the teacher runs live" in live.basis
    assert "live" not in make_plan(make_sweep(evidence=evidence), None).estimate.basis


# --- the measurement ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figures", "most", "size"),
    [
        ({}, 9, 1),
        ({1: 9.0, 2: 10.0, 4: 12.0}, 9, 1),
        ({1: 9.0, 2: 6.0, 4: 4.0, 8: 3.95}, 9, 4),  # 8 is hardly faster
        ({1: 9.0, 2: 6.0, 4: 4.0, 8: 2.0}, 4, 4),
        ({2: 6.0}, 1, 1),
    ],
)
def test_the_fastest_size_is_the_smallest_that_is_as_fast(figures, most, size):
    assert packing.fastest_size(figures, most=most) == size


@pytest.fixture
def measured(monkeypatch):
    """Counts measurements, in which packs of five are the fastest."""
    cells = []

    def measure(cell, _sizes, **_):
        cells.append(cell)
        return {1: 9.0, 2: 6.0, 5: 2.0, 10: 3.0}

    monkeypatch.setattr("hkrun.trial.measure_packs", measure)
    return cells


def find(sweep, store, *, pack="auto", slots=2):
    return packing.find_sizes(sweep, store, pack=pack, workers=1, slots=slots, data_dir=None)


def test_a_machine_measures_each_shape_once(tmp_path, measured):
    store = open_store(tmp_path)
    sweep = load_sweep("sensitivity", dataset=None, seeds="20", epochs=None, overrides=())
    sizes = find(sweep, store)
    assert set(sizes.values()) == {5}
    assert len(sizes) > 10  # weights and margins do not change a step's length
    assert len(measured) == 1
    assert find(sweep, store) == sizes
    assert len(measured) == 1
    (figures,) = tmp_path.glob("machines/*/packs.json")
    (shape,) = json.loads(figures.read_text())["shapes"].values()
    assert shape["ms_per_step_of_a_seed"] == {"1": 9.0, "2": 6.0, "5": 2.0, "10": 3.0}


def test_another_machine_measures_anew(tmp_path, measured, monkeypatch):
    store, sweep = open_store(tmp_path), make_sweep(seeds=range(20))
    find(sweep, store)
    before, genuine = len(measured), packing._describe_machine
    monkeypatch.setattr(packing, "_describe_machine", lambda device: {**genuine(device), "processor": "x"})
    find(sweep, store)
    assert len(measured) == 2 * before
    assert len(list(tmp_path.glob("machines/*/packs.json"))) == 2


def test_damaged_figures_are_measured_again(tmp_path, measured):
    store, sweep = open_store(tmp_path), make_sweep(seeds=range(20))
    find(sweep, store)
    before = len(measured)
    (figures,) = tmp_path.glob("machines/*/packs.json")
    figures.write_text("{}")
    assert set(find(sweep, store).values()) == {5}
    assert len(measured) == 2 * before


def test_without_the_wish_nothing_is_measured(tmp_path, measured):
    sweep = make_sweep(seeds=range(20), evidence=EVIDENCE)
    assert set(find(sweep, open_store(tmp_path), pack=None).values()) == {8}
    assert set(find(sweep, None, pack=4).values()) == {4}
    assert measured == []


@pytest.mark.slow
@pytest.mark.parametrize("method", ["hksanc", "supervised", "anc", "fitnets", "vid"])
def test_a_real_measurement_has_a_figure_for_each_size(method):
    from hkrun.trial import measure_packs

    values = {"knowledge.form": "vid"} if method == "vid" else {"method": method}
    cell = cell_from_values(
        {
            "student.network": "preact-8-w4",
            "teacher.network": "preact-8-w4",
            "student.batch_size": 8,
            **values,
        }
    )
    figures = measure_packs(
        cell,
        (1, 2, 3),
        num_classes=10,
        image_shape=(1, 8, 8),
        threads=1,
        device="cpu",
        memory_bytes=1 << 40,
    )
    assert list(figures) == [1, 2, 3]
    assert all(figure > 0 for figure in figures.values())
    few = measure_packs(
        cell, (1, 2, 3), num_classes=10, image_shape=(1, 8, 8), threads=1, device="cpu", memory_bytes=1
    )
    assert list(few) == [1]
