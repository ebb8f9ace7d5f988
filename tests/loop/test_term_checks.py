"""Losses of the user's own are tried before anything trains: what is wrong with one is one line."""

import copy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from imported_modules import modules_below

from hkrun import user_parts
from hkrun.cli.program import call
from hkrun.config import Cell
from hkrun.distill.term_checks import try_terms
from hkrun.errors import InputError
from hkrun.methods import SHIPPED
from hkrun.models.stacked import Stacked
from hkrun.objective import DataSizes
from hkrun.spaces import load_cell

HEAD = """
import torch
from torch import nn
from torch.nn import functional as F
from hkrun.terms import Key, Term
POWER = Key("mine.power", 2.0, "Power.", source="chosen")
READS = {"student": ("descriptor",), "teacher": ("descriptor",)}
"""
SIZES = DataSizes(num_classes=3, num_images=40)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    user_parts.identify_source.cache_clear()
    yield tmp_path
    for name in modules_below(tmp_path):
        del sys.modules[name]
    user_parts.identify_source.cache_clear()


def make_cell(text: str, *overrides: str) -> Cell:
    Path("mine.py").write_text(HEAD + text)
    sys.modules.pop("mine", None)
    user_parts.identify_source.cache_clear()
    networks = ["student.network=preact-8-w4", "teacher.network=preact-8-w8"]
    return load_cell(overrides=["knowledge.form=mine:TERM", *networks, *overrides]).cells[0].cell


def problems(text: str, *, packed: bool = True) -> list[str]:
    try:
        try_terms(make_cell(text), SIZES, (1, 8, 8), packed=packed)
    except InputError as error:
        return error.problems
    return []


def function(body: str, more: str = "", **arguments: str) -> str:
    """A module with a function of that body, and its term."""
    declared = "".join(f", {name}={value}" for name, value in arguments.items())
    term = f"TERM = Term(summary='', function=loss, **READS{declared})"
    return f"def loss(student, teacher{more}):\n    {body}\n{term}\n"


MEAN = "return student.mean() - teacher.mean()"


SQUARES = "return (student.square().mean() - teacher.square().mean()).abs() ** power"
SOUND = [
    function(MEAN),
    function(SQUARES, ", *, power", keys="(POWER,)", over_batch="True"),
    function("return F.cross_entropy(student, labels)", ", labels", labels="True"),
    function("return (student * index[:, None]).mean()", ", index", index="True"),
    function("return student.std(dim=1).mean() + student.sort(dim=1)[0][:, 0].mean()"),
    function("return student.std() + student.sort(dim=0)[0][0].mean()", over_batch="True"),
]


@pytest.mark.parametrize("text", SOUND)
def test_a_sound_loss_is_taken(text: str) -> None:
    assert problems(text) == []


TAKES = "loss must take (descriptor, descriptor"
WRONG = {
    f"{TAKES}), as its term declares: missing a required argument: 'power'": function(SQUARES, ", *, power"),
    f"{TAKES}, power=), as its term declares: got an unexpected keyword argument": function(
        MEAN, keys="(POWER,)"
    ),
    f"{TAKES}, labels), as its term declares: too many positional arguments": function(MEAN, labels="True"),
    "must give one number for the batch, a tensor of shape (); it has shape (4,)": function(
        "return student.mean(dim=1)"
    ),
    "must give a tensor of one number; it gives a float": function("return 0.5"),
    "is nan on 4 images of random numbers": function("return (student.mean() - 1e9).log()"),
    "its gradient is not finite on 4 images": function("return (student.mean() * 0).sqrt()"),
    "has no gradient: it is computed without the student, or": function("return student.detach().mean()"),
    "no gradient reaches the student's descriptor": function("return student.mean() * 0"),
    "fails: RuntimeError: The size of tensor a (16) must match the size of tensor b (7) at non-singleton "
    "dimension 1 (mine.py:9: return (student - teacher[:, :7]).mean())": function(
        "return (student - teacher[:, :7]).mean()"
    ),
    "learns = True, so mine:loss must be a class of torch.nn.Module": function(MEAN, learns="True"),
    "draws from torch's global generator; with random=True it gets one of its own": function(
        "return student.mean() + torch.rand(())"
    ),
}


@pytest.mark.parametrize(("problem", "text"), WRONG.items())
def test_what_is_wrong_with_a_loss_is_one_line(problem: str, text: str) -> None:
    (line,) = problems(text)
    assert line.startswith(f"mine:TERM: {problem}")


LEARNED = """
class Map(nn.Module):
    def __init__(self, ours, theirs):
        super().__init__()
        self.map = nn.Linear(ours, theirs)
        self.other = nn.Linear(2, 2)
        self.register_buffer("memory", torch.zeros(theirs))
    def forward(self, student, teacher):
        BODY
        return F.mse_loss(self.map(student), teacher)
TERM = Term(summary='', function=Map, learns=True, **READS)
"""


def test_a_parameter_that_never_gets_a_gradient_is_named() -> None:
    assert problems(LEARNED.replace("BODY", "pass")) == [
        "mine:TERM: no gradient reaches its parameter other.weight",
        "mine:TERM: no gradient reaches its parameter other.bias",
    ]


def test_layers_without_a_rule_for_their_initial_weights_are_named() -> None:
    text = LEARNED.replace("self.other = nn.Linear(2, 2)", "self.other = nn.Bilinear(2, 2, 2)").replace(
        "BODY", "pass"
    )
    (line,) = problems(text)
    assert line == "mine:TERM: cannot be built: TypeError: initialise: no rule for the parameters of Bilinear"


COMPARED = [
    "return torch.dist(student @ student.T, teacher @ teacher.T)",
    "return student.square().sum()",
    "return (student - student[[3, 2, 1, 0]]).square().mean()",
    "return 1e-7 * (student - student[[3, 2, 1, 0]]).square().mean()",
    "from hkrun.modern.pkt import pkt_loss; return pkt_loss(student, teacher, self_pairs=True)",
]


@pytest.mark.parametrize("body", COMPARED)
def test_a_loss_that_compares_images_says_so(body: str) -> None:
    (line,) = problems(function(body))
    assert line.startswith(("mine:TERM: gives ", "mine:TERM: fails on a part of a batch: "))
    assert line.endswith("; a loss that is no mean over images (a sum?) needs over_batch=True in its Term")
    assert problems(function(body, over_batch="True")) == []


def test_both_values_of_a_loss_that_compares_images_are_named() -> None:
    (line,) = problems(function("return student.mean() * 1e-9 + len(student)"))
    assert "mine:TERM: gives 4 for a batch and 2 as the mean over its halves; " in line


def test_a_loss_that_learns_is_tried_on_halves_too() -> None:
    text = LEARNED.replace("self.other = nn.Linear(2, 2)", "pass")
    assert problems(text.replace("BODY", "pass")) == []
    centred = text.replace("BODY", "student = student - student.mean(dim=0)")
    assert "; a loss that is no mean over images (a sum?) needs over_batch=True" in problems(centred)[0]
    assert problems(centred.replace("learns=True", "learns=True, over_batch=True")) == []


UNMAPPED = [
    ("return student[student > 0].sum() / len(student)", "", "return student[student > 0].sum()"),
    (
        "return student.mean() * float(student.detach().max() > 0)",
        ".item(): ",
        "return student.mean() * float(",
    ),
    ("return student.mean() if student.sum() > -1e9 else 0 * student.sum()", "", "return student.mean() if"),
]


@pytest.mark.parametrize(("body", "operation", "line"), UNMAPPED)
def test_what_cannot_be_mapped_over_a_pack_is_refused_for_packs_alone(
    body: str, operation: str, line: str
) -> None:
    (problem,) = problems(function(body))
    assert problem.startswith(f"mine:TERM: cannot be mapped over the runs of a pack: {operation}")
    assert f" (mine.py:9: {line}" in problem
    assert problem.endswith("; packs=False in its Term trains its runs one at a time, and so does --pack 1")
    assert problems(function(body), packed=False) == []
    assert problems(function(body, packs="False")) == []


def test_a_sweep_refuses_such_a_loss_unless_its_runs_train_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine.py").write_text(HEAD + function(UNMAPPED[0][0]))
    (folder / "space.toml").write_text(
        'dataset = "digits"\nseeds = 3\n[[cells]]\nname = "a"\nknowledge.form = "mine:TERM"\n'
    )
    assert call(["sweep", "space.toml", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "mine:TERM: cannot be mapped over the runs of a pack: vmap: " in " ".join(error.split())
    assert "Traceback" not in error
    assert call(["sweep", "space.toml", "--dry-run", "--pack", "1"]) == 0
    assert call(["sweep", "space.toml", "--dry-run", "--seeds", "1"]) == 0


def test_a_state_that_packs_would_lose_is_refused() -> None:
    text = LEARNED.replace("self.other = nn.Linear(2, 2)", "pass")
    assert problems(text.replace("BODY", "self.memory.mul_(0.9).add_(teacher.mean(dim=0))")) == []
    (line,) = problems(text.replace("BODY", "self.memory = self.memory * 0.9 + teacher.mean(dim=0)"))
    assert "memory: was replaced; change a buffer in place, as copy_() does" in line


def test_a_pack_keeps_each_members_state() -> None:
    class Counter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(2))

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            self.get_buffer("seen").add_(rows.sum(dim=0))
            return self.get_buffer("seen").sum()

    members = [Counter(), Counter()]
    stacked = Stacked(members)
    rows = torch.arange(12.0).reshape(2, 3, 2)
    for _ in range(2):
        values = stacked.each(lambda member, rows: member(rows), rows)
    expected = 2 * rows.sum(dim=1)
    assert torch.equal(values, expected.sum(dim=1))
    assert all(
        torch.equal(member.get_buffer("seen"), own) for member, own in zip(members, expected, strict=True)
    )


@pytest.mark.parametrize("norm", [torch.nn.BatchNorm2d(2), torch.nn.Identity()], ids=["norm", "none"])
def test_a_term_that_normalises_is_mapped_over_runs_without_cudnn(norm: torch.nn.Module) -> None:
    """On a GPU its BatchNorm asks for what vmap refuses to tell; tests/test_gpu.py runs ReviewKD there."""
    stacked = Stacked([torch.nn.Sequential(norm), torch.nn.Sequential(copy.deepcopy(norm))])
    seen = []

    def evaluate(member: torch.nn.Module, maps: torch.Tensor) -> torch.Tensor:
        seen.append(torch.backends.cudnn.enabled)
        return member(maps)

    before = torch.backends.cudnn.enabled
    stacked.each(evaluate, torch.rand(2, 3, 2, 4, 4))
    assert seen == [before and isinstance(norm, torch.nn.Identity)]
    assert torch.backends.cudnn.enabled == before


def test_a_cell_whose_classifier_nothing_trains_is_refused() -> None:
    alone = ("loss.lambda_1=0.0", "loss.lambda_2=0.0")
    with pytest.raises(
        InputError, match=r"knowledge.form: no term reads the student's logits, so nothing trains"
    ):
        make_cell(function(MEAN), *alone)
    assert make_cell(function(MEAN), *alone, "loss.kd=1.0")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_methods_and_forms_that_come_as_files_pass_the_checks_of_those_of_users(name: str) -> None:
    networks = ["student.network=preact-8-w4", "teacher.network=preact-8-w8"]
    for chosen in (f"method={name}", f"knowledge.form={name}"):
        cell = load_cell(overrides=[chosen, *networks]).cells[0].cell
        try_terms(cell, SIZES, (1, 8, 8), packed=True)


STATEFUL = """
class Kept(nn.Module):
    def __init__(self, ours, theirs):
        super().__init__()
        self.ours = nn.Linear(ours, theirs, bias=False)
        INIT
    def forward(self, student, teacher):
        loss = F.mse_loss(self.ours(student), teacher)
        FORWARD
        return loss
TERM = Term(summary='', function=Kept, learns=True, **READS)
"""


def stateful(init: str, forward: str) -> str:
    return STATEFUL.replace("INIT", init).replace("FORWARD", forward)


def test_runs_that_would_share_a_parameter_in_a_pack_are_refused_for_packs() -> None:
    text = stateful(
        "self.tied = nn.Linear(ours, theirs, bias=False); self.tied.weight = self.ours.weight",
        "loss = loss + self.tied(student).square().mean()",
    )
    (line,) = problems(text)
    assert line.startswith("mine:TERM: two runs give ")
    assert line.endswith("packs=False in its Term trains its runs one at a time, and so does --pack 1")
    assert problems(text, packed=False) == []


MIXING = """
class Mean(torch.autograd.Function):
    @staticmethod
    def forward(values):
        return values.mean()
    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.shape = inputs[0].shape
    @staticmethod
    def backward(ctx, gradient):
        return gradient.expand(ctx.shape) / ctx.shape.numel()
    @staticmethod
    def vmap(info, in_dims, values):
        return values.mean().expand(info.batch_size), 0
"""


def test_runs_that_would_share_their_images_in_a_pack_are_refused_for_packs() -> None:
    text = MIXING + function("return Mean.apply(student)")
    (line,) = problems(text)
    assert line.startswith("mine:TERM: two runs give ")
    own = text.replace("values.mean().expand(info.batch_size)", "values.flatten(1).mean(dim=1)")
    assert problems(own) == []


def test_a_state_outside_the_buffers_is_refused() -> None:
    (line,) = problems(stateful("self.seen = 0", "self.seen += 1; loss = loss * self.seen"), packed=False)
    assert line.startswith("mine:TERM: gives ")
    assert line.endswith(" for one batch: what it keeps must be in buffers")
    text = stateful(
        "self.register_buffer('seen', torch.zeros(()))", "self.seen.add_(1); loss = loss * self.seen"
    )
    assert problems(text, packed=False) == []


def test_a_buffer_that_is_drawn_from_the_global_generator_is_refused() -> None:
    text = stateful("self.register_buffer('start', torch.randn(theirs))", "loss = loss + self.start.mean()")
    (line,) = problems(text, packed=False)
    assert line.startswith("mine:TERM: its buffer start is drawn from torch's global generator; a method ")
    drawn = "    def reset_random(self, generator):\n        self.start.normal_(generator=generator)\n"
    assert problems(text.replace("    def forward", f"{drawn}    def forward"), packed=False) == []
