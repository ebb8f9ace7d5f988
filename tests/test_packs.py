"""How many runs train together: the rules, and the measurement that a user can ask for."""

import dataclasses
import json

import pytest
from study_example import make_study, plan_on
from test_plan import ALONE, L_B, L_IS, MEASURED, make_sweep, put

from hkrun.cli.planned import list_cells
from hkrun.cli.program import call
from hkrun.cluster.nodes.resources import Node, Share, check_pack
from hkrun.config import cell_from_values, cell_id
from hkrun.errors import InputError, ResourceError
from hkrun.plans import (
    AUTO,
    PackingFacts,
    Workers,
    choose_sizes,
    estimate_time,
    kept_sizes,
    save_plan,
    why_alone,
)
from hkrun.plans.packs import PROCESS_BYTES, Length, expect_length, seed_bytes
from hkrun.spaces import load_sweep
from hkrun.store import open_store
from hkrun.sweep import pack_sizes
from hkrun.sweep.machine import Machine

EVIDENCE = {"pack_cpu": {"value": 8, "label": MEASURED}}


def packs_of(plan):
    return [(pack.name, pack.seeds) for pack in plan.packs]


def choose(sweep, *, slots=1, workers=AUTO, device="cpu", **options):
    return choose_sizes(sweep, PackingFacts(workers=workers, slots=slots, device=device, **options))


def test_packs_take_turns_across_the_cells():
    sizes = {cell_id(L_B): 2, cell_id(L_IS): 3}
    plan = plan_on(make_sweep(seeds=range(5)), None, sizes=sizes)
    assert packs_of(plan) == [
        ("L_is", (0, 1, 2)),
        ("L_b", (0, 1)),
        ("L_b", (2, 3)),
        ("L_is", (3, 4)),
        ("L_b", (4,)),
    ]
    assert plan.num_trials == plan.document()["trials"] == 5
    assert plan.num_to_run == 10


def test_the_longest_runs_of_a_turn_come_first():
    longer = dataclasses.replace(L_IS, student=dataclasses.replace(L_IS.student, epochs=60))
    sweep = make_sweep([("L_b", L_B), ("longer", longer), ("L_is", L_IS)], seeds=range(4))
    plan = plan_on(sweep, None, sizes=dict.fromkeys(map(cell_id, (L_B, longer, L_IS)), 2))
    first, second = (0, 1), (2, 3)
    assert packs_of(plan) == [
        *(("longer", first), ("L_is", first), ("L_b", first)),  # by epochs, then by terms
        *(("longer", second), ("L_is", second), ("L_b", second)),
    ]


def test_which_seeds_go_together_does_not_depend_on_those_that_are_done(tmp_path):
    store = open_store(tmp_path)
    for seed, status in ((0, "finished"), (3, "diverged"), (4, "failed")):
        put(store, L_B, seed, status)
    plan = plan_on(make_sweep([("L_b", L_B)], seeds=range(6)), store, sizes={cell_id(L_B): 3})
    assert packs_of(plan) == [("L_b", (1, 2)), ("L_b", (4, 5))]


def test_what_trains_together_is_counted_of_the_runs_that_are_left(tmp_path):
    """A pack of seven of which four have a result trains the other three."""
    store = open_store(tmp_path / "store")
    sweep = make_sweep(seeds=range(7))
    for seed in range(4):
        put(store, L_B, seed)
    for seed in range(7):
        put(store, L_IS, seed)
    plan = plan_on(sweep, store, sizes={cell_id(L_B): 7, cell_id(L_IS): 7})
    assert [plan.together(cell_id(cell)) for cell in (L_B, L_IS)] == [3, 1]
    assert [figures[3] for _, figures in list_cells(plan).values()] == ["3", "-"]


def test_the_longest_pack_bounds_the_estimate():
    evidence = {"seconds_per_run": {"value": 3.0, "label": MEASURED}}
    sweep = make_sweep([("alone", ALONE)], seeds=range(8), evidence=evidence)
    plan = plan_on(sweep, None, slots=4, sizes={cell_id(ALONE): 8})
    assert estimate_time(plan).training_seconds == 8 * 6.0  # ten epochs of the recipe's five
    assert estimate_time(plan_on(sweep, None, slots=4, sizes={cell_id(ALONE): 2})).training_seconds == 2 * 6.0


@pytest.mark.parametrize(
    ("values", "workers", "reason"),
    [
        ({}, 1, ""),
        ({}, 2, "several workers"),
        ({"student.network": "resnet-18"}, 1, "torchvision"),
        ({"student.network": "resnet8x4"}, 1, ""),
        ({"student.network": "shufflenetv2"}, 1, "shuffles its channels"),
        ({"dataset": "imagenet"}, 1, "decoded"),
    ],
)
def test_what_cannot_be_packed_says_why(values, workers, reason):
    found = why_alone(cell_from_values(values), workers=Workers.exactly(workers))
    assert reason in found
    assert bool(found) == bool(reason)


def test_a_network_of_the_user_s_own_trains_alone(tmp_path, monkeypatch):
    (tmp_path / "pack_nets.py").write_text(
        "import torch\n\nclass Net(torch.nn.Module):\n    widths = (4, 4, 4)\n    stem_width = 4\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    cell = cell_from_values({"student.network": "pack_nets:Net", "method": "supervised"})
    assert "pack_nets:Net" in why_alone(cell, workers=AUTO)


def test_a_new_sweep_takes_what_its_recipe_has_measured_for_its_networks():
    wide = cell_from_values({"student.network": "preact-32"})
    sweep = make_sweep([("L_b", L_B), ("wide", wide)], seeds=range(20), evidence=EVIDENCE)
    assert choose(sweep) == {cell_id(L_B): 7, cell_id(wide): 1}  # of at most 8: three packs of the 20
    assert choose(sweep, device="cuda") == {cell_id(L_B): 1, cell_id(wide): 1}
    assert set(choose(make_sweep(seeds=range(20))).values()) == {1}


@pytest.mark.parametrize(
    ("network", "size"),
    [
        ("preact-20-w8", 7),
        ("preact-14", 7),
        ("preact-20-w17", 1),
        ("preact-26", 1),
        ("wrn-16-1", 1),
        ("resnet20", 1),
    ],
)
def test_what_is_measured_holds_for_networks_of_its_kind_that_are_no_larger(network, size):
    cell = cell_from_values({"student.network": network})
    assert L_B.student.network == "preact-20"
    sweep = make_sweep([("L_b", L_B), ("other", cell)], seeds=range(20), evidence=EVIDENCE)
    assert choose(sweep)[cell_id(cell)] == size


TWENTY = {"pack_cpu": {"value": 20, "label": MEASURED}}


def of_many_cells(number, *, num_seeds=20, again=0):
    """A sweep of so many cells, some of which have another name again."""
    cells = [(f"c{index}", cell_from_values({"loss.lambda_2": float(index)})) for index in range(number)]
    return make_sweep(
        cells + [(f"{name} again", cell) for name, cell in cells[:again]],
        seeds=range(num_seeds),
        evidence=TWENTY,
    )


@pytest.mark.parametrize(
    ("num_cells", "slots", "size"),
    [
        (4, 2, 20),  # two rounds of 20 x 0.2 = 4; of tens four of 2.5
        (3, 2, 10),  # three rounds of 2.5; of twenties two of 4, with a slot idle in the second
        (1, 2, 10),
        (4, 16, 5),  # one round of 5 x 0.35 = 1.75; of fours two of 1.6
        (1, 16, 2),  # one round of 1.24 though six slots are idle; of single runs two of 1
        (1, 20, 1),
        (1, 400, 1),
        (55, 16, 20),
    ],
)
def test_a_new_sweep_takes_the_packs_with_which_it_ends_first(num_cells, slots, size):
    assert set(choose(of_many_cells(num_cells), slots=slots).values()) == {size}


def test_another_name_of_a_cell_is_no_more_work():
    assert choose(of_many_cells(1, again=1), slots=2) == choose(of_many_cells(1), slots=2)


def test_runs_that_train_alone_fill_the_slots_too():
    wide = cell_from_values({"student.network": "preact-32", "student.epochs": L_B.student.epochs})
    sizes = choose(make_sweep([("L_b", L_B), ("wide", wide)], seeds=range(20), evidence=TWENTY), slots=2)
    assert sizes == {cell_id(L_B): 20, cell_id(wide): 1}  # 4 beside 20 units of work; alone they were tens


# A pack takes the time of one seed, however many it has; a live teacher takes three of it for each seed.
ALIKE = {
    "pack_cuda": {"value": 4, "label": MEASURED},
    "pack_steps_cuda": {"value": {"1": 1.0, "2": 0.5, "4": 0.25}, "label": MEASURED},
    "live_teacher_steps": {"value": 3.0, "label": MEASURED},
}
EPOCHS = {"student.epochs": 5}  # the recipe's
TAUGHT = cell_from_values({"loss.lambda_2": 0.0, "loss.lambda_3": 0.0} | EPOCHS)
LIVE = cell_from_values({"teacher_table": "off"} | EPOCHS)
UNTAUGHT = cell_from_values({"method": "supervised", "teacher_table": "off"} | EPOCHS)


def test_a_run_is_as_long_as_its_epochs_and_a_teacher_without_a_table_make_it():
    recipe = make_sweep(evidence=ALIKE).recipe
    assert recipe.cell.student.epochs == 5
    assert expect_length(TAUGHT, recipe) == expect_length(UNTAUGHT, recipe) == Length(own=1.0)
    assert expect_length(LIVE, recipe) == Length(own=1.0, live=3.0)
    longer = cell_from_values({"teacher_table": "off", "student.epochs": 10})
    assert expect_length(longer, recipe) == Length(own=2.0, live=6.0)
    fitnets = cell_from_values({"method": "fitnets"} | EPOCHS)
    first, second = fitnets.stage_epochs
    assert expect_length(fitnets, recipe) == Length(own=(first + second) / 5, live=3 * (first + second) / 5)
    assert expect_length(LIVE, make_sweep(evidence=TWENTY).recipe) == Length(own=1.0)


@pytest.mark.parametrize(
    ("slots", "sizes"),
    [
        (1, [4, 4]),  # 1 and 13; of twos 2 and 14
        (2, [2, 2]),  # 7 and 1 beside 1 and 7; of fours 1 beside 13
        (5, [4, 1]),  # 1 beside four of 4; all alone, one slot would have one of 4 after one of 1
        (8, [1, 1]),  # nothing can be sooner than 4: the smallest of those that are as soon
    ],
)
def test_packs_of_longer_runs_are_cut_smaller_where_the_others_would_wait(slots, sizes):
    sweep = make_sweep([("taught", TAUGHT), ("live", LIVE)], seeds=range(4), evidence=ALIKE)
    chosen = choose(sweep, slots=slots, device="cuda")
    assert [chosen[cell_id(TAUGHT)], chosen[cell_id(LIVE)]] == sizes


def test_seeds_are_spread_evenly_over_packs():
    assert set(choose(of_many_cells(1, num_seeds=21), slots=1).values()) == {11}


def test_packs_shrink_to_what_memory_allows():
    sweep = of_many_cells(4)
    (first, *others) = choose(sweep)
    sizes = choose(sweep, limits={first: 6})
    assert sizes == {first: 5, **dict.fromkeys(others, 20)}


def test_a_wish_comes_before_what_was_begun_and_that_before_the_recipe():
    sweep = make_sweep([("L_b", L_B), ("L_is", L_IS)], seeds=range(20), evidence=EVIDENCE)
    kept = {cell_id(L_B): 5}
    assert choose(sweep, kept=kept) == {cell_id(L_B): 5, cell_id(L_IS): 7}
    assert set(choose(sweep, kept=kept, wanted=10).values()) == {10}
    assert set(choose(sweep, kept=kept, wanted=100).values()) == {20}  # there are no more seeds
    measured = {cell_id(L_IS): {1: 1.0, 2: 0.6}}
    assert choose(sweep, kept=kept, steps=measured) == {cell_id(L_B): 5, cell_id(L_IS): 2}
    assert choose(sweep, kept={**kept, cell_id(L_IS): 5}, steps=measured)[cell_id(L_IS)] == 2
    assert set(choose(sweep, workers=Workers.exactly(2), kept=kept, wanted=10).values()) == {1}


def test_the_store_keeps_the_sizes_of_a_sweep_for_the_seeds_that_it_began_with(tmp_path):
    store, sweep = open_store(tmp_path), make_sweep(seeds=range(20))
    assert kept_sizes(store, sweep) == {}
    save_plan(store, sweep, sizes={cell_id(L_B): 5})
    assert kept_sizes(store, sweep) == {cell_id(L_B): 5}
    assert kept_sizes(store, make_sweep(seeds=range(30))) == {}


def test_a_run_s_share_of_a_pack_is_estimated_from_packs(tmp_path):
    evidence = {
        "seconds_per_run": {"value": 3.0, "label": MEASURED},
        "seconds_per_packed_run": {"value": 0.5, "label": MEASURED},
    }
    sweep = make_sweep([("alone", ALONE)], seeds=range(4), evidence=evidence)
    assert estimate_time(plan_on(sweep, None)).training_seconds == 4 * 6.0  # ten epochs of the recipe's five
    assert estimate_time(plan_on(sweep, None, sizes={cell_id(ALONE): 2})).training_seconds == 4 * 1.0
    store = open_store(tmp_path)
    put(store, ALONE, 0, seconds=7.0, pack=(0,))
    put(store, ALONE, 1, seconds=2.0, pack=(1, 9))
    assert estimate_time(plan_on(sweep, store)).training_seconds == 2 * 7.0
    assert estimate_time(plan_on(sweep, store, sizes={cell_id(ALONE): 4})).training_seconds == 2 * 2.0


def test_the_estimate_says_where_the_teacher_runs_live():
    vid = cell_from_values({"knowledge.form": "vid", "loss.lambda_2": 0.0, "student.epochs": 10})
    evidence = {"seconds_per_run": {"value": 3.0, "label": MEASURED}}
    live = estimate_time(plan_on(make_sweep([("vid", vid)], evidence=evidence), None))
    assert "longer where the teacher runs live" in live.basis
    assert "live" not in estimate_time(plan_on(make_sweep(evidence=evidence), None)).basis


# --- the measurement ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figures", "sizes"),
    [
        ({}, [1]),
        ({1: 9.0, 2: 10.0, 4: 12.0}, [1]),
        ({1: 9.0, 2: 6.0, 4: 4.0, 8: 3.95}, [1, 2, 4]),  # 8 is hardly faster
        ({1: 9.0, 2: 10.0, 4: 4.0, 8: 4.1, 16: 3.0}, [1, 4, 16]),
        ({2: 6.0}, [1]),
    ],
)
def test_sizes_that_are_hardly_faster_than_a_smaller_one_do_not_count(figures, sizes):
    steps = pack_sizes.compare_steps(figures)
    assert list(steps) == sizes
    assert steps == {size: figures.get(size, 9.0) / 9.0 for size in sizes}


@pytest.fixture
def measured(monkeypatch):
    """Counts measurements, in which packs of five are the fastest."""
    cells = []

    def measure(measurement, _sizes, **_):
        cells.append(measurement.cell)
        return {1: 9.0, 2: 6.0, 5: 2.0, 10: 3.0}

    monkeypatch.setattr("hkrun.trial.pack_speed.measure_packs", measure)
    return cells


def machine(slots):
    """One machine with so many CPUs, and memory enough."""
    return Machine(nodes=(Node(cpus=slots, gpus=0, memory_bytes=64 << 30),))


def find(sweep, store, *, pack="auto", slots=2):
    return find_in(make_study(sweep, store, pack=pack, machine=machine(slots)))


def find_in(study):
    if study.options.pack == "auto":
        pack_sizes.measure_sizes(study)
    return pack_sizes.expect_sizes(study)[0]


def expect(sweep, store, *, pack="auto", slots=2):
    return pack_sizes.expect_sizes(make_study(sweep, store, pack=pack, machine=machine(slots)))


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


@pytest.mark.parametrize(
    ("key", "values", "measurements"),
    [
        ("dkd.weight", (0.5, 1.0, 2.0), 1),
        ("dkd.cross_entropy", (0.5, 1.0), 1),
        ("dkd.warmup", (0, 20), 1),
        ("dkd.cross_entropy", (0.0, 1.0), 2),  # a term of weight 0 is not computed
        ("dkd.temperature", (2.0, 4.0), 2),  # what a function does with its keys is not known
    ],
)
def test_weights_of_methods_with_keys_of_their_own_are_not_measured_anew(
    tmp_path, measured, key, values, measurements
):
    cells = [cell_from_values({"method": "dkd", key: value}) for value in values]
    sweep = make_sweep(
        [(f"{value}", cell) for value, cell in zip(values, cells, strict=True)], seeds=range(20)
    )
    assert len(find(sweep, open_store(tmp_path))) == len(values)
    assert len(measured) == measurements


def test_another_machine_measures_anew(tmp_path, measured, monkeypatch):
    store, sweep = open_store(tmp_path), make_sweep(seeds=range(20))
    find(sweep, store)
    before, genuine = len(measured), pack_sizes._describe_machine
    monkeypatch.setattr(pack_sizes, "_describe_machine", lambda *known: {**genuine(*known), "processor": "x"})
    find(sweep, store)
    assert len(measured) == 2 * before
    assert len(list(tmp_path.glob("machines/*/packs.json"))) == 2


def test_with_more_slots_each_has_less_memory_and_is_measured_anew(tmp_path, measured):
    store, sweep = open_store(tmp_path), make_sweep([("L_b", L_B)], seeds=range(20))
    find(sweep, store, slots=2)
    find(sweep, store, slots=4)
    assert len(measured) == 2


def test_without_a_measurement_auto_takes_the_figures_that_there_are_and_says_what_is_missing(
    tmp_path, measured, monkeypatch
):
    monkeypatch.setattr("hkrun.data.load_dataset", None)  # nothing may load images
    sweep = make_sweep([("L_b", L_B), ("alone", ALONE)], seeds=range(20), evidence=TWENTY)
    store = open_store(tmp_path / "store")
    before = set(tmp_path.rglob("*"))
    for known in (None, store):
        sizes, (note,) = expect(sweep, known)
        assert sizes == expect(sweep, known, pack=None)[0]
        assert "no figures of this machine yet for 2 of 2" in note
        assert "measures when the sweep starts" in note
    assert measured == []
    assert set(tmp_path.rglob("*")) == before
    monkeypatch.undo()
    monkeypatch.setattr("hkrun.trial.pack_speed.measure_packs", lambda *_, **__: {1: 9.0, 2: 6.0, 5: 2.0})
    find(sweep, store)
    assert expect(sweep, store) == (dict.fromkeys(sizes, 5), [])


def test_where_the_gpus_are_elsewhere_nothing_is_measured_and_that_is_said(tmp_path, measured, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    sweep, store = make_sweep([("L_b", L_B)], seeds=range(20), evidence=EVIDENCE), open_store(tmp_path)
    node = Node(cpus=8, gpus=4, memory_bytes=64 << 30, gpu_memory_bytes=16 << 30)
    study = make_study(sweep, store, pack="auto", machine=Machine(nodes=(node,), device="cuda"))
    assert find_in(study) == {cell_id(L_B): 1}
    _, (note,) = pack_sizes.expect_sizes(study)
    assert "there is no GPU here" in note
    assert measured == []


def test_a_measurement_that_came_to_nothing_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("hkrun.trial.pack_speed.measure_packs", lambda *_, **__: {})
    store, sweep = open_store(tmp_path), make_sweep(seeds=range(20), evidence=TWENTY)
    assert find(sweep, store) == expect(sweep, store, pack=None)[0]
    assert list(tmp_path.glob("machines/*")) == []


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
    assert set(find(sweep, open_store(tmp_path), pack=None).values()) == {7}
    assert set(find(sweep, open_store(tmp_path), pack=4).values()) == {4}
    assert measured == []


def measure_small(sizes=(1, 2, 3), *, memory_bytes=1 << 40, **values):
    from hkrun.trial.pack_speed import Measurement, measure_packs

    small = {"student.network": "preact-8-w4", "teacher.network": "preact-8-w4", "student.batch_size": 8}
    return measure_packs(
        Measurement(
            cell=cell_from_values({**small, **values}),
            num_classes=10,
            image_shape=(1, 8, 8),
            threads=1,
            device="cpu",
        ),
        sizes,
        memory_bytes=memory_bytes,
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["hksanc", "supervised", "anc", "fitnets", "vid", "crd"])
def test_a_real_measurement_has_a_figure_for_each_size(method):
    values = {"knowledge.form": "vid"} if method == "vid" else {"method": method}
    figures = measure_small(**values)
    assert list(figures) == [1, 2, 3]
    assert all(figure > 0 for figure in figures.values())


@pytest.mark.slow
def test_a_measurement_that_took_too_much_spoils_no_other_one():
    from hkrun.trial.pack_speed import peak_bytes

    held = bytearray(1 << 30)
    held[:: 1 << 12] = b"x" * (1 << 18)  # touches every page
    assert peak_bytes("cpu") > 1 << 30
    assert list(measure_small(memory_bytes=1)) == [1]
    assert list(measure_small(memory_bytes=1 << 30)) == [1, 2, 3]
    del held


@pytest.mark.slow
def test_a_measurement_counts_the_images_that_a_test_takes_at_a_time(monkeypatch):
    from hkrun.trial import pack_speed

    asked = []
    classify = pack_speed.Pack.classify

    def listening(pack, images):
        asked.append((len(pack.runs), tuple(images.shape)))
        return classify(pack, images)

    monkeypatch.setattr(pack_speed.Pack, "classify", listening)
    cell = cell_from_values({"method": "supervised", "student.network": "preact-8-w4"})
    inputs = pack_speed.Measurement(cell, 10, (1, 8, 8), 1, "cpu")
    assert [size for size, _ in pack_speed._time_sizes(inputs, (1, 2), 1 << 40)] == [1, 2]
    assert asked == [(1, (256, 1, 8, 8)), (2, (256, 1, 8, 8))]


@pytest.mark.slow
def test_an_error_of_the_measurement_is_raised_here():
    with pytest.raises(InputError, match=r"nowhere\.pt"):
        measure_small(**{"teacher.file": "nowhere.pt"})


# --- memory -------------------------------------------------------------------------------------------------

GB = 10**9


@pytest.mark.parametrize(("size", "measured_gb"), [(1, 0.91), (4, 1.58), (8, 2.13), (20, 3.42)])
def test_a_pack_is_estimated_to_take_what_was_measured_or_somewhat_more(size, measured_gb):
    cell = cell_from_values({"student.network": "preact-20"})
    estimate = PROCESS_BYTES + size * seed_bytes(cell, side=32, evaluation_batch=256)
    assert measured_gb * GB <= estimate <= 1.3 * measured_gb * GB


def test_large_tests_double_precision_and_large_batches_take_more():
    def need(evaluation_batch=256, **values):
        cell = cell_from_values({"student.network": "preact-20", **values})
        return seed_bytes(cell, side=32, evaluation_batch=evaluation_batch)

    assert need(precision="float64") == 2 * need()
    assert need(**{"student.batch_size": 128}) == 2 * need()
    assert need(evaluation_batch=2048) == 3 * 16 * 32 * 32 * 2048 * 4 > need()


@pytest.fixture
def small_machine(monkeypatch):
    """Two CPUs with 1 GiB each."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    node = Node(cpus=2, gpus=0, memory_bytes=2 << 30)
    monkeypatch.setattr("hkrun.cluster.nodes.resources.local_node", lambda **_: node)
    return Machine(nodes=(node,))


def on_cifar(*, seeds=20, recipe=None):
    cell = cell_from_values({"dataset": "cifar10", "student.network": "preact-20"})
    sweep = make_sweep([("L_b", cell)], seeds=range(seeds), evidence=TWENTY)
    return dataclasses.replace(
        sweep, dataset="cifar10", recipe=dataclasses.replace(sweep.recipe, cell=recipe or cell)
    )


def test_a_pack_that_the_user_wants_must_fit(small_machine):
    def check(pack, *, machine=small_machine, **options):
        pack_sizes.check_packs(make_study(on_cifar(**options), None, pack=pack, machine=machine), 32)

    with pytest.raises(ResourceError) as refusal:
        check(20)
    assert refusal.value.exit_code == 4
    assert refusal.value.message == (
        "--pack 20: 20 runs of L_b take about 3.8 GiB together, but 2 processes at a time may have "
        "1 GiB each; --pack 1 would fit"
    )
    for pack in (None, "auto", 1):
        check(pack)
    check(20, seeds=1)  # it is packs of one
    (small,) = small_machine.nodes
    large = dataclasses.replace(small, memory_bytes=64 << 30)
    check(20, machine=Machine(nodes=(large, large)))
    with pytest.raises(ResourceError, match=r"2 processes at a time on one of the nodes may have 1 GiB each"):
        check(20, machine=Machine(nodes=(large, small)))  # each pack may come to lie on each node
    check(20, machine=Machine(nodes=(large, dataclasses.replace(small, cpus=0))))  # there none lies
    on_gpu = dataclasses.replace(large, gpus=1, gpu_memory_bytes=16 << 30)
    check(20, machine=Machine(nodes=(on_gpu,), device="cuda"))
    with pytest.raises(ResourceError, match=r"4 processes at a time may have 4 GiB each; --pack 8 would fit"):
        check(20, machine=Machine(nodes=(on_gpu,), device="cuda", per_gpu=4))


def test_teachers_need_memory_for_as_many_as_there_are(small_machine):
    wide = {"dataset": "cifar10", "student.network": "preact-20-w4", "teacher.network": "preact-164"}
    paired = {**wide, "method": "hksanc", "teacher.seeds": "paired"}

    def check(students):
        cell = cell_from_values({**paired, "teacher.students": students})
        sweep = dataclasses.replace(on_cifar(), cells=make_sweep([("L", cell)]).cells)
        pack_sizes.check_packs(make_study(sweep, None, pack=20, machine=small_machine), 32)

    (small,) = small_machine.nodes
    small_machine = dataclasses.replace(
        small_machine, nodes=(dataclasses.replace(small, memory_bytes=16 << 30),)
    )
    with pytest.raises(ResourceError, match="20 runs of the teacher of L"):
        check(1)
    check(10)  # two teachers


def test_the_size_that_would_fit_does():
    needs = {"process_bytes": PROCESS_BYTES, "seed_bytes": 132 * 10**6}
    with pytest.raises(ResourceError, match="--pack 7 would fit"):
        check_pack(8, "x", Share(2 * GB, 1), **needs)
    check_pack(7, "x", Share(2 * GB, 1), **needs)


def test_packs_of_the_recipe_shrink_to_the_memory_without_a_word(small_machine):
    sweep = on_cifar()
    (small,) = small_machine.nodes
    for memory_gib, size in ((2, 1), (4, 5)):
        node = dataclasses.replace(small, memory_bytes=memory_gib << 30)
        found = pack_sizes.expect_sizes(make_study(sweep, None, machine=Machine(nodes=(node,))))
        assert found == ({cell_id(sweep.cells[0].cell): size}, [])


# --- what a plan says ---------------------------------------------------------------------------------------


def test_a_plan_names_the_size_of_each_cell_and_why_some_are_not_packed(tmp_path, monkeypatch, capsys):
    for name in ("HKRUN_STORE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # two workers would want a GPU each
    monkeypatch.chdir(tmp_path)
    command = ["sweep", "stability", "--dry-run", "--seeds", "6"]

    def told(*options):
        assert call([*command, *options]) == 0
        return capsys.readouterr().out

    assert call([*command, "--pack", "3", "--json"]) == 0
    assert {cell["pack"] for cell in json.loads(capsys.readouterr().out)["cells"]} == {3}
    table = told("--pack", "3")
    assert "together" in table
    assert "alone" not in table
    rows = [line.split() for line in table.splitlines() if "L_b" in line]
    assert {row[-2] for row in rows} == {"3"}
    assert "Each run trains alone: L_b, " in told("--pack", "3", "--workers", "2")
    assert "(several workers train one run)" in told("--pack", "auto", "--workers", "2")
    assert "alone" not in told("--workers", "2")
    assert "measures when the sweep starts" in told("--pack", "auto").replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_refuses_packs_that_do_not_fit_before_it_writes(tmp_path, small_machine, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HKRUN_STORE", raising=False)
    command = ["sweep", "stability", "--dataset", "cifar10", "--seeds", "20", "--pack", "10"]
    for options in ([], ["--dry-run"]):
        assert call([*command, *options]) == 4
        assert "would fit" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
