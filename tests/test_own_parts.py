import importlib
import importlib.util
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from imported_modules import modules_below

from hkrun import user_parts
from hkrun.config import canonical, cell_id, check_weight_file, teacher_id
from hkrun.data import load_dataset
from hkrun.distill.term_checks import try_terms
from hkrun.errors import DataError, InputError
from hkrun.models import build_network
from hkrun.models.own import try_own
from hkrun.networks import parse_network
from hkrun.objective import DataSizes
from hkrun.spaces import load_cell, load_sweep, restore_sweep, sweep_document

NETWORK = """\
    from torch import nn
    from hkrun.models import BatchNorm2d, Features

    class Small(nn.Module):
        widths = (8, 16)
        stem_width = 4

        def __init__(self, *, num_classes, in_channels):
            super().__init__()
            self.stem = nn.Conv2d(in_channels, 4, 3, padding=1, bias=False)
            self.first = nn.Conv2d(4, 8, 3, padding=1, bias=False)
            self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
            self.norm = BatchNorm2d(16)
            self.classifier = nn.Linear(16, num_classes)

        def forward(self, images):
            stem = self.stem(images)
            first = self.first(stem)
            second = self.second(first.relu())
            descriptor = self.norm(second).relu().mean(dim=(2, 3))
            logits = self.classifier(descriptor)
            return Features(logits=logits, stages=(first, second), descriptor=descriptor, stem=stem)
    """
DATA = """\
    import torch
    from hkrun.data import Dataset, Split

    def stripes(data_dir):
        def split(size):
            labels = torch.arange(size) % 2
            images = torch.zeros(size, 1, 6, 6, dtype=torch.uint8)
            images[labels == 1, :, ::2] = 200
            return Split(images, labels)
        return Dataset(name="stripes", train=split(20), test=split(10), classes=("plain", "striped"))
    """
BOTH = ["student.network=nets:Small", "teacher.network=nets:Small"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working directory with the modules `nets` and `sets`, which no other test sees."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    user_parts.identify_source.cache_clear()
    write("nets.py", NETWORK)
    write("sets.py", DATA)
    yield tmp_path
    for name in modules_below(tmp_path):
        del sys.modules[name]
    user_parts.identify_source.cache_clear()


def write(path, text):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")


def forget(*names):
    """As a new process would see it."""
    for name in names:
        sys.modules.pop(name, None)
    user_parts.identify_source.cache_clear()


def problems(**arguments):
    with pytest.raises(InputError) as caught:
        load_cell(**arguments)
    return [re.split(r": (?:student\.network|dataset): ", line)[1] for line in caught.value.problems]


# --- used like built-in ones --------------------------------------------------------------------------------


def test_an_own_network_is_a_network_like_others():
    cell = load_cell(overrides=BOTH).cells[0].cell
    shape = parse_network(cell.student.network)
    assert (shape.block, shape.stem_width, shape.widths) == ("own", 4, (8, 16))
    assert cell.squeeze_widths == (8, 16)
    network = build_network("nets:Small", num_classes=3, in_channels=1)
    assert (network.widths, network.descriptor_width) == ((8, 16), 16)
    assert network(torch.zeros(2, 1, 6, 6)).logits.shape == (2, 3)
    try_own("nets:Small", num_classes=3, image_shape=(1, 6, 6))


def test_a_function_may_build_the_network():
    write(
        "nets.py",
        NETWORK
        + """
    def wider(*, num_classes, in_channels):
        return Small(num_classes=num_classes, in_channels=in_channels)
    wider.widths, wider.stem_width = (8, 16), 4
    """,
    )
    network = build_network("nets:wider", num_classes=3, in_channels=1)
    assert (network.widths, network.descriptor_width) == ((8, 16), 16)


def test_an_own_data_set_is_a_data_set_like_others(folder):
    sweep = load_cell(dataset="sets:stripes")
    assert (sweep.dataset, sweep.cells[0].cell.dataset) == ("sets:stripes", "sets:stripes")
    assert sweep.source.endswith("recipes/folder.toml")
    write("search_spaces/recipes/stripes.toml", "[student]\nepochs = 3\n[analysis]\nwindow = 2\n")
    assert load_cell(dataset="sets:stripes").cells[0].cell.student.epochs == 3
    dataset = load_dataset("sets:stripes")
    assert (dataset.name, dataset.num_classes, dataset.image_shape(0)) == ("sets:stripes", 2, (1, 6, 6))
    assert load_sweep("stability", dataset="sets:stripes").cells[0].name == "L_b"


def test_a_module_in_a_package_is_found():
    write("lab/__init__.py", "")
    write("lab/nets.py", NETWORK)
    assert load_cell(overrides=["student.network=lab.nets:Small", "teacher.network=lab.nets:Small"]).cells


def test_nothing_is_imported_before_such_a_name_is_used():
    write("nets.py", "raise RuntimeError('too early')")
    load_cell()
    code = "import sys, hkrun.config, hkrun.spaces; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


# --- identity -----------------------------------------------------------------------------------------------


def test_the_source_is_part_of_the_cell_and_of_the_teacher():
    before = load_cell(overrides=BOTH, dataset="sets:stripes").cells[0].cell
    form = canonical(before)
    sources = {key for key in form if key.endswith(".source")}
    assert sources == {"dataset.source", "student.network.source", "teacher.network.source"}
    with Path("nets.py").open("a") as file:
        file.write("# changed\n")
    forget("nets")
    after = load_cell(overrides=BOTH, dataset="sets:stripes").cells[0].cell
    assert cell_id(after) != cell_id(before)
    assert teacher_id(after) != teacher_id(before)


def test_the_teacher_does_not_depend_on_the_students_source():
    write("lab.py", NETWORK)
    overrides = ["student.network=lab:Small", "teacher.network=nets:Small"]
    before = load_cell(overrides=overrides).cells[0].cell
    write("lab.py", NETWORK + "    # changed\n")
    forget("lab")
    after = load_cell(overrides=overrides).cells[0].cell
    assert teacher_id(after) == teacher_id(before)
    assert cell_id(after) != cell_id(before)


def test_a_cell_without_a_teacher_does_not_depend_on_the_teachers_source():
    cell = load_cell(overrides=["method=supervised", *BOTH]).cells[0].cell
    assert [key for key in canonical(cell) if key.endswith(".source")] == ["student.network.source"]


def test_in_a_package_the_neighbours_count_too():
    write("lab/__init__.py", "")
    write("lab/nets.py", NETWORK)
    before = user_parts.identify_source("lab.nets:Small")
    write("lab/deep/other.py", "x = 1\n")
    forget()
    after = user_parts.identify_source("lab.nets:Small")
    assert after != before
    write("lab/notes.txt", "no source")
    forget()
    assert user_parts.identify_source("lab.nets:Small") == after


def test_built_in_cells_are_what_they_were():
    assert not load_cell().cells[0].cell.sources
    assert not [key for key in canonical(load_cell().cells[0].cell) if "source" in key]


def test_a_stored_sweep_keeps_the_source_that_it_was_made_with():
    sweep = load_cell(overrides=BOTH)
    document = json.loads(json.dumps(sweep_document(sweep)))
    write("nets.py", NETWORK + "    # changed\n")
    forget("nets")
    restored = restore_sweep(document, where="plan.json")
    assert restored == sweep
    name, sha256 = next(iter(restored.cells[0].cell.own_parts.items()))
    with pytest.raises(
        InputError, match=r"^nets:Small: its source here is not the one of this configuration; "
    ):
        user_parts.check_source(name, sha256)


def test_a_stored_sweep_keeps_its_ids_where_the_users_files_are_not(tmp_path, monkeypatch):
    Path("backbone.pt").write_bytes(b"weights")
    wider = NETWORK.replace("16", "32").replace("Small", "Wide")
    write("wide.py", wider)
    networks = ["student.network=wide:Wide", "teacher.network=nets:Small", "attention.width=student"]
    sweep = load_cell(dataset="sets:stripes", overrides=[*networks, "teacher.file=backbone.pt"])
    cell = sweep.cells[0].cell
    ids = (cell_id(cell), teacher_id(cell))
    document = json.loads(json.dumps(sweep_document(sweep)))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in ("nets.py", "wide.py", "sets.py", "backbone.pt"):
        (tmp_path / name).unlink()
    forget("nets", "wide", "sets")
    restored = restore_sweep(document, where="plan.json")
    assert restored == sweep
    cell = restored.cells[0].cell
    assert (cell_id(cell), teacher_id(cell)) == ids
    assert cell.squeeze_widths == (8, 32)
    with pytest.raises(InputError, match="no such file"):
        check_weight_file(cell, "teacher.file")


def test_a_teacher_file_is_the_same_from_every_folder_and_checked_before_it_is_used(tmp_path, monkeypatch):
    file = tmp_path / "backbone.pt"
    file.write_bytes(b"weights")
    cell = load_cell(overrides=["teacher.file=backbone.pt"]).cells[0].cell
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cell.teacher.file == str(file)
    check_weight_file(cell, "teacher.file")
    identity = cell_id(cell)
    file.write_bytes(b"others!")
    assert cell_id(cell) == identity
    with pytest.raises(InputError, match="its content is not the one of this configuration"):
        check_weight_file(cell, "teacher.file")


# --- mistakes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (
            "nots:Small",
            "nots:Small: no module 'nots' in the working directory or on Python's path (PYTHONPATH)",
        ),
        ("nets.a:Small", "nets.a:Small: no module 'nets.a' in the working directory or on Python's path"),
        ("nets:Smal", "nets:Smal: module nets has no 'Smal'"),
        ("nets:Small.x", "'nets:Small.x': a part of your own is named package.module:name, such as"),
        ("nets: Small", "'nets: Small': a part of your own is named package.module:name, such as"),
        ("nets:", "'nets:': a part of your own is named package.module:name, such as"),
        ("bad:Small", "bad:Small: its import fails: ZeroDivisionError: division by zero (bad.py:2)"),
        ("leaves:Small", "leaves:Small: its import fails: SystemExit: 0 (leaves.py:2)"),
        ("syntax:Small", "syntax:Small: its import fails: SyntaxError: invalid syntax (syntax.py, line 1)"),
        ("needs:Small", "needs:Small: its import fails: ModuleNotFoundError: No module named 'nothing_here'"),
        ("odd:number", "odd:number: must be a class or a function; it is of type int"),
        ("odd:Silent", "odd:Silent: a network needs the attribute widths, a tuple of the channels of each"),
        ("odd:Listed", "odd:Listed: a network needs the attribute widths, a tuple of the channels of each"),
        ("odd:Stemless", "odd:Stemless: a network needs the attribute stem_width, the channels of what"),
    ],
)
def test_an_own_network_that_cannot_be_used_is_refused_in_one_line(name, problem):
    write("bad.py", "x = 1\ny = 1 / 0\n")
    write("leaves.py", "import sys\nsys.exit(0)\n")
    write("syntax.py", "def f(:\n")
    write("needs.py", "import nothing_here\n")
    write(
        "odd.py",
        """\
        number = 3
        class Silent: pass
        class Listed: widths, stem_width = [8, 16], 8
        class Stemless: widths = (8, 16)
        """,
    )
    (line,) = problems(overrides=[f"student.network={name}"])
    assert line.startswith(problem)


def test_a_file_of_the_users_that_a_library_hides_is_named(folder):
    write("random.py", NETWORK)
    (line,) = problems(overrides=["student.network=random:Small"])
    library = importlib.util.find_spec("random").origin
    hidden = f"{folder / 'random.py'} is hidden by the library random ({library}): rename it"
    assert line == f"random:Small: module random has no 'Small'; {hidden}"


def test_a_package_of_the_users_that_a_library_hides_is_named(folder):
    write("numbers/nets.py", NETWORK)
    (line,) = problems(overrides=["student.network=numbers.nets:Small"])
    assert line.startswith("numbers.nets:Small: no module 'numbers.nets' in the working directory or on")
    assert f"; {folder / 'numbers'} is hidden by the library numbers (" in line


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("from numbers import Layer", "ImportError: cannot import name 'Layer' from 'numbers'"),
        ("import numbers; numbers.Layer", "AttributeError: module 'numbers' has no attribute 'Layer'"),
        ("import numbers.layers", "ModuleNotFoundError: No module named 'numbers.layers'"),
    ],
)
def test_an_import_that_a_library_hides_is_named(folder, statement, problem):
    write("numbers.py", "class Layer: pass")
    write("mine.py", f"{statement}\n")
    (line,) = problems(overrides=["student.network=mine:Small"])
    assert line.startswith(f"mine:Small: its import fails: {problem}")
    assert f"(mine.py:1); {folder / 'numbers.py'} is hidden by the library numbers (" in line


def test_nothing_is_called_hidden_that_is_not():
    write("mine.py", "import nets; nets.Nothing")
    (line,) = problems(overrides=["student.network=mine:Small"])
    problem = "AttributeError: module 'nets' has no attribute 'Nothing' (mine.py:1)"
    assert line == f"mine:Small: its import fails: {problem}"


def test_an_own_part_lies_in_the_drivers_folder_or_in_the_processs(folder, monkeypatch):
    elsewhere = folder / "elsewhere"
    write("elsewhere/here.py", NETWORK)
    write("elsewhere/numbers.py", "raise RuntimeError")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv(user_parts.DRIVER_FOLDERS, str(folder))
    forget("numbers")
    assert user_parts.load_part("nets:Small").__module__ == "nets"
    assert user_parts.load_part("here:Small").__module__ == "here"
    assert importlib.import_module("numbers").Number


def test_an_own_data_set_that_cannot_be_found_is_refused_in_one_line():
    (line,) = problems(dataset="sets:stripe")
    assert line == "sets:stripe: module sets has no 'stripe'"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("num_classes, in_channels", "classes", "cannot be built: TypeError: "),
        ("class Small(nn.Module)", "class Small(dict)", "must give a torch.nn.Module; it gives a Small"),
        ("BatchNorm2d(16)", "nn.PReLU(16)", "initialise: no rule for the parameters of PReLU"),
        (
            "self.norm(second)",
            "nn.functional.dropout(self.norm(second), training=self.training)",
            "gives other",
        ),
        (
            "stem_width = 4",
            "stem_width = 4; descriptor_width = 8",
            r"descriptor .* \(2, 8\); they have \(2, 16\)",
        ),
        ("stem_width = 4", "stem_width = 4; descriptor_width = 0", "descriptor_width, .* from 1; it is 0"),
        ("first.relu()", "images", r"fails on images of shape \(2, 1, 6, 6\): RuntimeError: "),
        ("return Features(", "return dict(", "must return hkrun.models.Features; it returns a dict"),
        ("(first, second)", "(first,)", "widths names 2 stages; it returns 1"),
        ("(8, 16)", "(8, 32)", r"descriptor of two images must have shape \(2, 32\); they have \(2, 16\)"),
        ("stem=stem", "stem=None", r"stem .* \(2, 4, height, width\); it has none, being a NoneType"),
        (
            "(16, num_classes)",
            "(16, 7)",
            r"logits of two images must have shape \(2, 3\); they have \(2, 7\)",
        ),
    ],
)
def test_a_network_that_does_something_else_is_refused_before_anything_trains(old, new, problem):
    text = textwrap.dedent(NETWORK)
    assert old in text
    write("nets.py", text.replace(old, new).replace("super().__init__()", "super().__init__()", 1))
    with pytest.raises(InputError, match=f"nets:Small: {problem}"):
        try_own("nets:Small", num_classes=3, image_shape=(1, 6, 6))


@pytest.mark.parametrize(
    ("old", "new", "error", "problem"),
    [
        ("return Dataset(", "return dict(", InputError, "must return hkrun.data.Dataset; it returns a dict"),
        ("def stripes(data_dir)", "def stripes()", InputError, "fails: TypeError: "),
        ('("plain", "striped")', '("plain",)', InputError, "1 classes; it must have two or more"),
        ("% 2", "% 3", InputError, "train has labels outside 0 to 1"),
        ("split(20)", "split(0)", InputError, "train has no images"),
        ("split(20)", "split(1)", InputError, "train has no image of 1 class.es.: striped"),
        ("split(10)", "split(1)", InputError, "test has no image of 1 class.es.: striped"),
        ("1, 6, 6, dtype", "1, 0, 6, dtype", InputError, "train has images without pixels"),
        (
            "= 200",
            "= 0",
            InputError,
            r"channel\(s\) 1 of 1: one value in every pixel of every",
        ),
        (
            "= 200",
            "= 200 if size == 20 else 1",
            InputError,
            "images of train have values up to 200, those",
        ),
        (
            "1, 6, 6, dtype",
            "1, 6, size, dtype",
            InputError,
            r"images of train have shape \(1, 6, 20\), those of",
        ),
        (
            "dtype=torch.uint8",
            "",
            InputError,
            r"fails: ValueError: images must be torch.uint8 of shape \(N, C, H",
        ),
        (
            "torch.arange(size) % 2",
            "torch.zeros(size)",
            InputError,
            "fails: ValueError: labels must be torch.int64",
        ),
        ("labels = torch", "open('gone'); labels = torch", DataError, r"\[Errno 2\] No such file"),
    ],
)
def test_an_unsound_own_data_set_is_refused_in_one_line(old, new, error, problem):
    text = textwrap.dedent(DATA)
    assert old in text
    write("sets.py", text.replace(old, new))
    with pytest.raises(error, match=f"sets:stripes: {problem}"):
        load_dataset("sets:stripes")


# --- the page that describes them ---------------------------------------------------------------------------


def test_the_examples_in_the_docs_work():
    text = (Path(__file__).parents[1] / "docs" / "own-parts.md").read_text(encoding="utf-8")
    loss, method, network, data = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for name, example in (("losses", loss), ("methods", method), ("nets", network), ("data", data)):
        write(f"my{name}.py", example)
    dataset = load_dataset("mydata:stripes")
    try_own("mynets:SmallNet", num_classes=dataset.num_classes, image_shape=dataset.image_shape(0))
    names = ["student.network=mynets:SmallNet", "teacher.network=mynets:SmallNet"]
    assert load_cell(dataset="mydata:stripes", overrides=names).cells
    form = load_cell(overrides=["knowledge.form=mylosses:Similarity", "similarity.power=1"]).cells[0].cell
    assert canonical(form)["similarity.power"] == 1.0
    try_terms(form, DataSizes(num_classes=10, num_images=300), (1, 8, 8), packed=True)
    assert len(loss.strip().splitlines()) <= 10, "a simple loss takes ten lines"
    mine = load_cell(overrides=["method=mymethods:Mine", "mine.beta=1000"]).cells[0].cell
    assert mine.stage_weights == ({"cross_entropy": 1.0, "similarity": 1000.0},)
