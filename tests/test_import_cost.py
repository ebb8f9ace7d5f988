import json
import subprocess
import sys

HEAVY = {
    "torch",
    "torchvision",
    "ray",
    "mlflow",
    "matplotlib",
    "pyarrow",
    "numpy",
    "scipy",
    "pandas",
    "rich",
    "jinja2",
    "optuna",
    "onnx",
    "onnxruntime",
    "PIL",
    "safetensors",
}


def modules_loaded_by(statement):
    """The modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def loaded_by(statement):
    """The top-level packages of these."""
    return {name.partition(".")[0] for name in modules_loaded_by(statement)}


def test_plans_are_read_without_scipy():
    assert "scipy" not in loaded_by("import hkrun.plans")


def test_what_a_plan_says_of_power_is_computed_without_the_half_second_that_parts_of_scipy_take():
    loaded = modules_loaded_by(
        "from hkrun import stats\nstats.detectable_effect(20), stats.detectable_margin(20)"
    )
    assert not loaded & {"scipy.special", "scipy.optimize", "scipy.stats"}


def test_ray_need_not_wait_for_scipy():
    statement = "import hkrun.tracking, hkrun.sweep.planning, hkrun.sweep.running, hkrun.cluster.tasks"
    assert "scipy" not in loaded_by(statement)


def test_ray_is_started_and_its_processes_come_in_order_before_anything_heavy_is_imported():
    assert not loaded_by("import hkrun.cluster.driver.process") & HEAVY
    assert not loaded_by("import hkrun.cluster.ray_private.worker") & HEAVY


def test_the_command_line_loads_nothing_heavy():
    assert not loaded_by("import hkrun.cli") & HEAVY


def test_help_and_mistakes_load_nothing_heavy():
    lines = [["--help"], ["--version"], ["sweep", "--help"], ["swep"], ["sweep", "--no-such-option"]]
    statement = f"from hkrun.cli.program import call\nfor arguments in {lines!r}: call(arguments)"
    assert not loaded_by(statement) & HEAVY


def find_threshold(statement):
    """Of how many new objects a process looks for cycles, after a statement."""
    code = f"import gc, sys\nsys.argv = ['hkrun', '--version']\n{statement}\nprint(gc.get_threshold()[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def test_a_command_looks_for_cycles_seldom_and_leaves_that_of_others_alone():
    command = "try: hkrun.cli.main()\nexcept SystemExit: pass"
    assert find_threshold(f"import hkrun.cli\n{command}") > 10_000
    assert find_threshold("import hkrun.cli, hkrun\nhkrun.open_store") == find_threshold("")


def test_the_package_offers_the_store_without_loading_it_first():
    loaded = loaded_by("import hkrun")
    assert "pyarrow" not in loaded
    assert "pyarrow" in loaded_by("import hkrun\nhkrun.open_store")


def test_the_names_of_the_package_are_there_before_anything_heavy_is_loaded():
    statement = "import hkrun\nassert set(dir(hkrun)) >= {'plan', 'run', 'open_store', 'NotFoundError'}"
    assert not loaded_by(statement) & HEAVY


def test_opening_a_store_or_making_a_plan_needs_neither_torch_nor_ray_nor_mlflow():
    loaded = loaded_by("import hkrun\nhkrun.plan, hkrun.run, hkrun.open_store")
    assert not loaded & {"torch", "ray", "mlflow", "matplotlib", "pandas"}


def test_opening_a_store_loads_nothing_of_the_statistics():
    loaded = modules_loaded_by("import hkrun\nhkrun.open_store")
    assert not {"hkrun.sweep", "hkrun.cli", "scipy", "rich"} & loaded


def test_reading_search_spaces_needs_no_torch_and_no_arrow():
    assert not loaded_by("import hkrun.spaces") & HEAVY


TRAIN = """
import torch
from hkrun.config import cell_from_values
from hkrun.data import load_dataset
from hkrun.data.views import Views
from hkrun.distill import distill, start_run
from hkrun.training import Images, SingleProcess, ResidentEvaluationSet, ResidentTrainingSet
values = {"method": "supervised", "student.network": "preact-8-w4", "student.epochs": 1}
cell, data, cpu = cell_from_values(values), load_dataset("digits"), torch.device("cpu")
runs = [start_run(cell, data, seed, context=SingleProcess(), device=cpu) for seed in (0, 1)]
distill(
    runs,
    teach={},
    images=Images(
        ResidentTrainingSet(data, Views(1, False), dtype=torch.float32, device=cpu),
        ResidentEvaluationSet(
            data.test.images, data.test.labels, data, dtype=torch.float32, device=cpu
        ),
    ),
    context=SingleProcess(),
    on_epoch=lambda runs: [run.state_dict() for run in runs],
)
assert runs[0].epoch == 1
"""


def test_the_training_loop_loads_neither_store_nor_ray_nor_mlflow_nor_torch_s_compiler():
    loaded = modules_loaded_by(TRAIN)
    assert "torch" in loaded
    assert not loaded & {"hkrun.store", "hkrun.plans", "hkrun.spaces", "ray", "mlflow", "torch._dynamo"}
