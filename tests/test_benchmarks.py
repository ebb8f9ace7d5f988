"""The scripts in benchmarks/ still run, and measure what they say; what comes out is not looked at."""

import copy
import dataclasses
import importlib
import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from loop.test_graphs import CpuRecorder
from torch import nn

from hkrun.config import cell_id
from hkrun.data.views import Views
from hkrun.distill import graphs, start_run
from hkrun.distill.pack import Pack
from hkrun.distill.step import Step
from hkrun.knowledge import LiveTeacher
from hkrun.plans import make_plan
from hkrun.spaces import load_sweep
from hkrun.store import open_store
from hkrun.training import STUDENT_DRAWS, ResidentTrainingSet, SingleProcess

FOLDER = Path(__file__).parent.parent / "benchmarks"
CPU = torch.device("cpu")
# What `make bench-gpu` must do without.
NOT_ON_A_GPU_BOX = ("ray", "mlflow", "torchvision", "scipy", "matplotlib", "jinja2", "rich", "click", "PIL")


@pytest.fixture
def load(monkeypatch):
    """Imports a script as it imports its neighbours: by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_the_recipe_search_trains_teachers_and_students_alone(load, kind):
    rows = load("digits_recipe").train(kind, "preact-8-w4", 100, 50, epochs=1, seeds=(1000, 1001))
    assert [(row["kind"], row["seed"]) for row in rows] == [(kind, 1000), (kind, 1001)]
    assert all(0 < row["error_pct"] <= 100 for row in rows)


# --- the reference loop -------------------------------------------------------------------------------------


@pytest.fixture
def tiny(load):
    """A size with networks small enough for a test: colour, mirrored, all terms."""
    return load("reference").Size(
        dataset="cifar10",
        teacher="preact-8-w6",
        student="preact-8-w4",
        side=8,
        channels=3,
        padding=1,
        flip=True,
        batch_size=8,
    )


def train_epoch(run, teacher, dataset):
    """Trains a run of seed 3 for an epoch; yields each batch and the losses of hkrun's step on it."""
    step = Step(Pack([run]), 0, LiveTeacher(teacher, precision="float64"), SingleProcess())
    images = ResidentTrainingSet(dataset, Views(1, flip=True), dtype=torch.float64, device=CPU)
    for batch in images.batches([3], 0, batch_size=8, draws=STUDENT_DRAWS, context=SingleProcess()):
        yield batch, step.train(batch)


def test_the_reference_loop_computes_what_hkrun_computes(load, tiny, tmp_path):
    reference, loops = load("reference"), load("loops")
    reference.generate_images(tmp_path, tiny, num_images=40)
    dataset = loops.read_dataset(tmp_path, tiny)
    cell = dataclasses.replace(tiny.cell, precision="float64")
    run = start_run(cell, dataset, 3, context=SingleProcess(), device=CPU)
    run.student_optimizer.param_groups[0]["lr"] = cell.student.learning_rate
    run.discriminator_optimizer.param_groups[0]["lr"] = cell.discriminator.learning_rate
    teacher = reference.build_teacher(tiny).double()
    theirs = reference.Training(
        cell, teacher, copy.deepcopy(run.student), copy.deepcopy(run.discriminator), device=CPU
    )
    steps = 0
    for batch, ours in train_epoch(run, teacher, dataset):
        steps += 1
        figures = theirs.step(batch.images[0], batch.labels[0])
        assert figures == {name: pytest.approx(ours[name].item(), rel=1e-10) for name in figures}
    assert steps == 5
    for mine, other in ((run.student, theirs.student), (run.discriminator, theirs.discriminator)):
        for name, value in mine.state_dict().items():
            assert torch.allclose(value, other.state_dict()[name], rtol=1e-9, atol=1e-12), name


@pytest.mark.filterwarnings("default")  # what torchdistill imports warns of itself
def test_torchdistill_s_loop_computes_what_hkrun_computes(load, tiny, tmp_path):
    reference, loops = load("reference"), load("loops")
    size = dataclasses.replace(tiny, method="kd", precision="float64")
    reference.generate_images(tmp_path, size, num_images=40)
    dataset = loops.read_dataset(tmp_path, size)
    run = start_run(size.cell, dataset, 3, context=SingleProcess(), device=CPU)
    run.student_optimizer.param_groups[0]["lr"] = size.cell.student.learning_rate
    recipe = loops.Recipe(
        name="", loop="torchdistill", size=size, folder=str(tmp_path), processes=1, threads=1
    )
    box = loops.TorchdistillLoop(recipe, 0).box
    teacher = reference.build_teacher(size).double()
    box.teacher_model.double().backbone.load_state_dict(teacher.backbone.state_dict())
    box.teacher_model.eval()
    box.student_model.double().backbone.load_state_dict(run.student.backbone.state_dict())
    steps = 0
    for batch, ours in train_epoch(run, teacher, dataset):
        steps += 1
        theirs = box.forward_process(batch.images[0], batch.labels[0], None)
        assert theirs.item() == pytest.approx(ours["loss_total"].item(), rel=1e-10)
        box.post_forward_process(theirs)
    assert steps == 5
    for name, value in run.student.backbone.state_dict().items():
        assert torch.allclose(value, box.student_model.backbone.state_dict()[name], rtol=1e-9, atol=1e-12)


def test_the_reference_loop_shows_the_views_that_hkrun_does(load, tiny, tmp_path):
    reference, loops = load("reference"), load("loops")
    reference.generate_images(tmp_path, tiny, num_images=5)
    dataset = loops.read_dataset(tmp_path, tiny)
    shown = reference.AugmentedImages(*reference.read_images(tmp_path, tiny), tiny)
    views = Views(tiny.padding, tiny.flip)
    images = ResidentTrainingSet(dataset, views, dtype=torch.float32, device=CPU)
    read = images._reader
    torch.manual_seed(0)
    seen = set()
    for _ in range(200):
        tensor, label = shown[2]
        assert label == dataset.train.labels[2]
        candidates = read(torch.full((views.count,), 2), torch.arange(views.count))
        found = [view for view, image in enumerate(candidates) if torch.allclose(image, tensor, atol=1e-5)]
        assert len(found) == 1
        seen.update(found)
    assert seen == set(range(views.count))


def test_generated_images_are_in_the_files_of_cifar(load, tmp_path):
    torchvision = pytest.importorskip("torchvision")
    reference = load("reference")
    size = reference.SIZES["cifar"]
    reference.generate_images(tmp_path, size, num_images=50)
    images, labels = reference.read_images(tmp_path, size)
    assert images.shape == (50, 32, 32, 3)
    assert set(labels) <= set(range(10))

    class Generated(torchvision.datasets.CIFAR10):
        base_folder = "."
        test_list = ()
        meta = None

        def _check_integrity(self):
            return True

        def _load_meta(self):
            self.classes = []

    theirs = Generated(str(tmp_path), train=True)
    assert (theirs.data == images).all()
    assert theirs.targets == labels.tolist()


# --- the floor ----------------------------------------------------------------------------------------------


def test_the_floor_counts_operations_and_bytes_of_both_passes(load):
    floor = load("floor")
    machine = floor.Machine(flops_per_s=1e9, bytes_per_s=1e9)
    left, right = torch.randn(8, 16), torch.randn(16, 4)
    product = floor.measure_work(lambda: left @ right, machine)
    assert product.operations == 1
    assert product.flops == 2 * 8 * 16 * 4
    assert product.bytes == 4 * (8 * 16 + 16 * 4 + 8 * 4)
    assert product.floor_s == pytest.approx(max(product.flops, product.bytes) / 1e9)
    weights = right.clone().requires_grad_()
    both = floor.measure_work(lambda: (left @ weights).sum().backward(), machine)
    assert both.flops == 2 * product.flops  # the weights' gradient; nobody asks for the input's
    assert floor.measure_work(lambda: left.view(16, 8).t(), machine).operations == 0


@pytest.mark.parametrize("groups", [1, 3])
def test_the_floor_counts_the_groups_of_a_convolution(load, groups):
    floor = load("floor")
    images = torch.randn(2, 6, 5, 5, requires_grad=True)
    weights = torch.randn(9, 6 // groups, 3, 3, requires_grad=True)
    machine = floor.Machine(flops_per_s=1e9, bytes_per_s=1e9)
    work = floor.measure_work(
        lambda: torch.nn.functional.conv2d(images, weights, groups=groups).sum().backward(), machine
    )
    forward = 2 * (2 * 9 * 3 * 3) * (6 // groups * 3 * 3)
    assert work.flops == 3 * forward


# --- forms of a pack ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 4, 8, 1), (4, 8, 8, 2), (2, 3, 4, 1)])
def test_all_forms_of_a_pack_s_convolution_are_the_same(load, shape):
    script, (channels, out_channels, side, stride) = load("pack_forms"), shape
    weight, maps = torch.randn(4, out_channels, channels, 3, 3), torch.randn(5, 4 * channels, side, side)
    expected = script.grouped(maps.double(), weight.double(), stride)
    for name, form in script.FORMS.items():
        found = form(script.lay_out(maps, form), weight, stride)
        assert torch.allclose(found.double(), expected, atol=1e-4), name


def test_a_member_that_is_not_a_number_stays_alone_in_all_forms_but_that_of_merged_members(load):
    script = load("pack_forms")
    weight, maps = torch.randn(4, 4, 4, 3, 3), torch.randn(5, 16, 8, 8)
    maps[:, 4:8] = math.nan
    for name, form in script.FORMS.items():
        outputs = form(script.lay_out(maps, form), weight, 1).unflatten(1, (4, 4))
        assert outputs[:, 1].isnan().all(), name
        assert outputs[:, [0, 2, 3]].isnan().any() == (name == "blocks of 16"), name


def test_forms_of_a_pack_are_measured_in_turns(load, capsys, monkeypatch):
    script = load("pack_forms")
    monkeypatch.setattr(script, "CONVOLUTIONS", ((4, 4, 8, 1),))
    script.print_convolutions(2, repeats=1)
    assert len(capsys.readouterr().out.splitlines()[-1].split(" / ")) == 1 + len(script.FORMS)
    times = script.measure("preact-8-w4", 8, 1, 2, repeats=1)
    assert [len(own) for own in times] == [1] * 5


# --- against another revision -------------------------------------------------------------------------------


@pytest.fixture
def against(load, tmp_path, monkeypatch):
    """The script in a repository whose first commit holds the number 12, and whose working tree holds 4."""
    script, repository = load("against"), tmp_path / "repository"
    repository.mkdir()
    monkeypatch.setattr(script, "HERE", repository)
    script.git("init", "--quiet", "--initial-branch", "main")
    (repository / "number").write_text("12")
    script.git("add", "number")
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    script.git(*author, "commit", "--quiet", "--message", "The first number")
    (repository / "number").write_text("4")
    return script


# Says how large the number of its side is, and writes down on which side it ran.
TELL = (
    "import json, pathlib, sys; number = pathlib.Path('number').read_text(); "
    "print('not a figure'); print(json.dumps({'number': int(number), 'digits': number, 'one': [1]})); "
    "pathlib.Path(sys.argv[1], 'ran').open('a').write(number + ' ')"
)


def test_two_revisions_take_turns_and_each_is_first_in_every_other_one(against, tmp_path, capsys):
    with against.checked_out("main") as other:
        against.compare(f'{{python}} -c "{TELL}" {tmp_path}', other, repeats=3, warm_up=1)
        assert other.name.startswith("main (")
    ran = (tmp_path / "ran").read_text().split()
    assert ran == ["4", "12", "12", "4", "4", "12", "12", "4"]
    printed = capsys.readouterr().out
    assert "| number | 12 | 12 | 12 | 4 | 4 | 4 | 3.00 | 3.00 | 3.00 |" in printed
    assert "digits: NOT the same on both sides and in all repetitions" in printed
    assert "one: the same on both sides and in all repetitions" in printed
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:]] == ["| whole process, s", "| peak memory, MB", "| number"]
    assert all(float(figure) > 0 for row in rows[1:3] for figure in row[1:7])


def test_the_memory_is_the_most_that_the_command_held(against):
    side = against.Side("here", against.HERE)
    figures = against.run("{python} -c 'bytearray(300 * 2**20)'", side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # the least that Linux can say
    assert 300 < figures[against.PEAK] < 350 + before


def test_the_checkout_of_the_other_revision_is_gone_afterwards(against):
    with against.checked_out("main") as other:
        assert (other.checkout / "number").read_text() == "12"
    assert not other.checkout.exists()
    assert len(against.git("worktree", "list").splitlines()) == 1
    assert (against.HERE / "number").read_text() == "4"


def test_each_side_imports_its_own_files(against):
    (against.HERE / "which.py").write_text('print(\'{"from": "here"}\')')
    with against.checked_out("main") as other:
        (other.checkout / "which.py").write_text('print(\'{"from": "there"}\')')
        sides = (other, against.Side("here", against.HERE))
        found = [against.run("{python} -P -c 'import which'", side)["from"] for side in sides]
    assert found == ["there", "here"]


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_of_the_repetitions(against):
    assert against.compare_times([6.0, 9.0, 100.0], [3.0, 2.0, 50.0]) == (3.0, 2.0, 4.5)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("{python} -c \"raise SystemExit('no such store')\"", "ended with 1:\nno such store"),
        ("no-such-program", "no-such-program: No such file or directory"),
    ],
)
def test_a_command_that_fails_is_named_with_its_side(against, command, message):
    with pytest.raises(against.CommandError) as raised:
        against.run(command, against.Side("main (1234567)", against.HERE))
    assert str(raised.value).startswith("main (1234567): ")
    assert message in str(raised.value)


def test_a_revision_that_is_not_there_is_said_in_one_line(against, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["against.py", "no-such", "true"])
    with pytest.raises(SystemExit, match=r"^against.py: no revision 'no-such' in \S+$"):
        against.main()


def test_an_epoch_of_a_pack_is_measured_and_its_curves_are_told(load):
    script = load("pack_epoch")
    cell = script.make_cell("L_b + L_adv + L_is", epochs=3, precision="float64")
    first, again = (script.measure(cell, 2) for _ in range(2))
    assert first["error curves"] == again["error curves"]
    assert [len(curve) for curve in first["error curves"]] == [3, 3]
    assert all(first[f"{what}, ms"] > 0 for what in ("training", "evaluation", "epoch"))
    assert first["epoch, ms"] >= first["evaluation, ms"]
    assert first["evaluation, times its floor"] > 1


def test_the_floor_of_an_evaluation_counts_each_multiplication_and_addition_once(load):
    script = load("pack_epoch")
    layers = (nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 10))
    network = nn.Sequential(*layers)
    convolution, linear = 2 * (3 * 9) * 4 * 64, 2 * 256 * 10
    assert script.count_flops(network, torch.zeros(5, 3, 8, 8)) == 5 * (convolution + linear)
    assert network.training


# --- bookkeeping --------------------------------------------------------------------------------------------


def test_generated_runs_are_complete_for_plan_and_resume(load, tmp_path):
    bookkeeping = load("bookkeeping")
    sweep, store = bookkeeping.make_sweep(8, 12), open_store(tmp_path / "store")
    bookkeeping.fill_store(store, sweep)
    for job in ("plan", "resume"):
        found = bookkeeping.measure(job, tmp_path / "store", 8, 12)
        assert found["seconds"] > 0
        assert found["peak_mb"] > 0


@pytest.mark.slow
def test_the_bookkeeping_benchmark_runs():
    printed = start("bookkeeping.py", "--quick")
    assert all(f" {job} " in printed for job in ("plan", "resume", "report again", "sync", "sync again"))


@pytest.mark.slow
def test_the_seed_step_benchmark_needs_torch_numpy_and_pyarrow_alone(tmp_path):
    block = f"import sys\nsys.modules.update(dict.fromkeys({NOT_ON_A_GPU_BOX}))\n"
    (tmp_path / "sitecustomize.py").write_text(block)
    printed = start("seed_step.py", "--size", "digits", "--quick", PYTHONPATH=str(tmp_path))
    assert "hkrun, table, pack of 2" in printed
    assert "times floor" in printed


def start(script, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, str(FOLDER / script), *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- the check of a GPU -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_gpu_check_runs_on_a_cpu_with_torch_numpy_and_pyarrow_alone(tmp_path):
    blocked = (*NOT_ON_A_GPU_BOX, "pytest")
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({blocked}))\n")
    done = subprocess.run(
        ["bash", str(FOLDER / "gpu_check.sh"), "--device", "cpu", "--out", "found"],
        env=os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found" / "gpu_check.json").read_text())
    assert len(found["tests"]["lines"]) == 7
    assert all(line.endswith("... ok") for line in found["tests"]["lines"])
    assert [(curve["method"], curve["agree"]) for curve in found["curves"]] == [
        ("hksanc", True),
        ("kd", True),
    ]
    measured = {(row["size"], row["precision"], row["pack"], row["graphs"]) for row in found["steps"]}
    assert measured == {
        (size, precision, pack, "off")
        for size in ("cifar", "digits")
        for precision in ("float32", "bfloat16")
        for pack in (1, 2)
    }
    assert "pack_cuda" not in found  # toys on a CPU say nothing of a GPU
    page = (tmp_path / "found" / "gpu_check.md").read_text()
    assert page in done.stdout
    assert page.startswith("# hkrun on a CPU, with networks of toys")


def settings_of(check, tiny, **values):
    return check.Settings(
        **{
            "device": CPU,
            "sizes": {"digits": tiny},
            "packs": (2,),
            "num_images": 40,
            "repeats": 4,
            "seconds": 0.0,
            "deadline": math.inf,
            **values,
        }
    )


def test_the_gpu_check_times_packs_with_recorded_steps_and_without(load, tiny, tmp_path, monkeypatch):
    check = load("gpu_check")
    recorders = []
    # A recorder of the CPU sees torch's operations alone.
    monkeypatch.setattr("hkrun.models.small_images._can_compile", lambda: False)
    monkeypatch.setattr(check, "choose_recorder", lambda *_: recorders.append(CpuRecorder()) or recorders[-1])
    found = check.measure(tmp_path, settings_of(check, tiny))
    assert [(row["pack"], row["precision"], row["graphs"]) for row in found["steps"]] == [
        (2, precision, graphs) for precision in check.PRECISIONS for graphs in ("off", "on")
    ]
    for row in found["steps"]:
        assert 0 < row["from"] <= row["ms"] <= row["to"]
        assert row["times_field"] == found["field_ms"]["digits"] / row["ms"]
    assert all(recorder.recorded == 1 and recorder.replayed == 2 for recorder in recorders)


def test_the_gpu_check_says_what_fell_back_and_what_was_left_out(load, tiny, tmp_path, monkeypatch):
    class NoRecorder(CpuRecorder):
        def record(self, function):
            raise RuntimeError("none today")

    check = load("gpu_check")
    graphs._tell.cache_clear()
    monkeypatch.setattr(check, "choose_recorder", lambda *_: NoRecorder())
    (tmp_path / "images").mkdir()
    bench = check.Bench(tmp_path / "images", tiny, settings_of(check, tiny))
    _, row = bench.time_pack(2, "float32")
    assert row["graphs"].startswith("fell back: ")
    assert row["graphs"].endswith("the step cannot be recorded: none today")
    late = check.measure(tmp_path, settings_of(check, tiny, deadline=0.0))
    assert late["steps"] == []
    assert late["left_out"][0] == "digits, float32, pack of 2: the time was over"


def test_the_gpu_check_finds_the_largest_pack_that_pays(load):
    report = load("gpu_report")

    def row(size, pack, graphs, ms, precision="float32"):
        return {"size": size, "pack": pack, "graphs": graphs, "ms": ms, "precision": precision}

    steps = [
        row("digits", 1, "on", 1.0),
        row("digits", 1, "off", 9.0),
        row("digits", 16, "on", 0.2),
        row("digits", 64, "on", 0.199),  # hardly faster
        row("digits", 64, "on", 0.1, "bfloat16"),
        row("cifar", 1, "fell back: no", 1.0),
        row("cifar", 4, "off", 0.5),
    ]
    assert report.find_packs(steps) == {"digits": 16, "cifar10": 4, "cifar100": 4}


def test_the_gpu_check_reports_what_it_found_before_it_broke_off(load):
    conditions = {
        "time": "2026-11-29T00:00:00",
        "device": "a GPU",
        "commit": "abc",
        "before": {"clocks.sm": "1980"},
    }
    tests = {
        "passed": False,
        "seconds": 3.2,
        "lines": ["test_x ... FAIL"],
        "failures": ["AssertionError: 1 and 2"],
    }
    page = "".join(load("gpu_report").write_report({"conditions": conditions, "tests": tests}))
    assert "All: measured (2026-11-29, a GPU), commit abc." in page
    assert '- before: {"clocks.sm": "1980"}' in page
    assert "**FAILED** in 3 s" in page
    assert "AssertionError: 1 and 2" in page


# --- capacity -----------------------------------------------------------------------------------------------


@pytest.fixture
def capacity(load):
    return load("capacity")


@pytest.fixture
def sweep():
    return load_sweep("stability", dataset=None, seeds="4", epochs=None, overrides=())


def times_of(capacity, sweep, *, run_s):
    runs = {cell_id(named.cell): run_s for named in sweep.cells}
    return capacity.Times(runs=runs, teacher=50.0, launch=3.0, before=7.0, after=11.0)


def test_the_simulated_schedule_takes_what_one_slot_must(capacity, sweep):
    plan = make_plan(sweep, None)
    result = capacity.simulate(plan, times_of(capacity, sweep, run_s=100.0), slots=1)
    # The teacher in a new process; then 16 runs in the same one.
    messages = 17 / capacity.TRIALS_PER_S + 16 * capacity.REUSE_S
    assert result.wall_s == pytest.approx(7 + 3 + 50 + 16 * 100 + 11 + messages)
    assert result.busy == pytest.approx((50 + 1600) / result.wall_s)
    assert (result.lost_s, result.failed) == (0, 0)


def test_the_simulated_schedule_waits_for_the_teacher_and_then_uses_all_slots(capacity, sweep):
    plan = make_plan(sweep, None)
    result = capacity.simulate(plan, times_of(capacity, sweep, run_s=100.0), slots=8)
    # One slot trains the teacher; the others start a process each when it is done; two turns of eight.
    assert result.wall_s == pytest.approx(7 + 3 + 50 + 3 + 2 * 100 + 11, abs=2)


def test_slots_beyond_the_number_of_runs_gain_nothing(capacity, sweep):
    plan = make_plan(sweep, None)
    times = times_of(capacity, sweep, run_s=100.0)
    sixteen = capacity.simulate(plan, times, slots=16)
    assert capacity.simulate(plan, times, slots=256).wall_s == sixteen.wall_s


def test_simulated_deaths_cost_no_more_than_what_no_checkpoint_had_kept(capacity, sweep):
    plan = make_plan(sweep, None)
    times = times_of(capacity, sweep, run_s=100.0)
    undisturbed = capacity.simulate(plan, times, slots=2)
    disturbed = capacity.simulate(plan, times, slots=2, deaths_per_hour=30.0)
    deaths = disturbed.lost_s / capacity.CHECKPOINT_EVERY_S
    assert 0 < deaths < 17 * 3
    assert disturbed.wall_s > undisturbed.wall_s
    assert disturbed.failed == 0


def test_a_simulated_task_that_dies_too_often_fails(capacity, sweep):
    plan = make_plan(sweep, None)
    times = times_of(capacity, sweep, run_s=10_000.0)
    assert capacity.simulate(plan, times, slots=2, deaths_per_hour=3600.0).failed > 0


def test_a_live_teacher_is_not_shortened_by_packs(capacity, sweep):
    plan = make_plan(sweep, None).in_packs({cell.cell_id: 4 for cell in make_plan(sweep, None).cells})
    times = times_of(capacity, sweep, run_s=100.0)
    live = dataclasses.replace(times, live=dict.fromkeys(times.runs, 70.0), steps={1: 1.0, 4: 0.5})
    assert capacity.time_pack(plan.packs[0], live) == 4 * (70.0 + 30.0 * 0.5)


def test_more_gpus_never_take_longer_for_the_paper_s_evaluation_and_none_beats_what_is_least(load):
    evaluation = load("evaluation")
    rows = [evaluation.evaluate(slots) for slots in (1, 8, 16, 64, 256)]
    assert [row.wall_s for row in rows] == sorted((row.wall_s for row in rows), reverse=True)
    assert all(row.wall_s >= row.least_s for row in rows)
    alone, widest = rows[0], rows[-1]
    assert alone.busy > 0.99
    assert widest.sizes == [1]
    # A teacher and the longest run after it, then the longest of the other study, all side by side.
    assert widest.wall_s < 1.01 * widest.least_s
    together = evaluation.evaluate(256, together=True)
    assert together.least_s <= together.wall_s < widest.wall_s
