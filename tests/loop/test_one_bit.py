"""Training with one-bit weights is that of their authors, step by step.

The steps are written again as the authors' code has them: real weights are put away, their signs take their
place in a network that knows nothing of quantising, and the gradient found there is applied to the real ones.
"""

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from hkrun.config import Cell
from hkrun.data import Dataset
from hkrun.distill import Run, distill, start_run
from hkrun.models.quantized import quantized_layers
from hkrun.teacher import dump_weights
from hkrun.training import SingleProcess
from loop.conftest import CPU, make_sets, tiny_cell
from loop.reference import Sgd, batches, rate_scale

# In some seeds sums of signs equal their mean: the sign of the difference is up to the order of additions.
SEEDS = (3, 0, 8)
TRICKS = {
    "bwn": ("scale_gradient", "center", "clamp"),
    "xnor": ("scale_gradient", "center", "clamp"),
    "binary_connect": ("scale_rate", "uniform_start"),
}
# Each method with all tricks, with none, and without each of them.
VARIANTS = [
    pytest.param(method, off, id=f"{method}-{name}")
    for method, tricks in TRICKS.items()
    for name, off in {
        "authors": (),
        "literal": tricks,
        **{f"no_{trick}": (trick,) for trick in tricks},
    }.items()
]


def one_bit_cell(method: str, off: Sequence[str] = (), **values: object) -> Cell:
    """Steps so large that real weights leave [-1, 1]."""
    switches = {f"quantization__{trick}": False for trick in off}
    return tiny_cell(**{"method": method, "student__learning_rate": 0.3, **switches, **values})


def start(cell: Cell, dataset: Dataset, seeds: Sequence[int] = SEEDS) -> list[Run]:
    return [start_run(cell, dataset, seed, context=SingleProcess(), device=CPU) for seed in seeds]


def train(cell: Cell, dataset: Dataset, runs: Sequence[Run]) -> None:
    distill(
        runs,
        teach={},
        context=SingleProcess(),
        on_epoch=lambda _: None,
        **make_sets(cell, dataset),  # type: ignore[arg-type]
    )


def signs(weight: Tensor) -> Tensor:
    return torch.where(weight < 0, -1.0, 1.0).to(weight)


class Reference:
    """The students of some runs, trained as their methods' authors do.

    Attributes:
        network: Backbone that computes with whatever its weights are.
        outside: How many real weights were beyond [-1, 1] when they were clamped or clipped.
    """

    def __init__(self, cell: Cell, run: Run) -> None:
        self.cell, self.seed = cell, run.seed
        self.network = copy.deepcopy(run.student.backbone)
        for layer in quantized_layers(self.network).values():
            layer.quantizer = nn.Identity()
        weights = [
            layer.weight for layer in self.network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
        ]
        self.binary = weights if cell.method == "binary_connect" else weights[1:-1]
        self.outside = 0

    def train(self, dataset: Dataset) -> None:
        settings, parameters = self.cell.student, list(self.network.parameters())
        step = self._binary_connect if self.cell.method == "binary_connect" else self._bwn
        # The gradients' and the weight decay's parts of the momentum, apart: only one is scaled.
        self.of_gradients = [torch.zeros_like(parameter) for parameter in parameters]
        self.of_decay = [torch.zeros_like(parameter) for parameter in parameters]
        self.sgd = Sgd(list(parameters), settings.momentum, settings.weight_decay)
        self.network.train()
        for epoch in range(settings.epochs):
            rate = settings.learning_rate * rate_scale(self.cell, epoch)
            for images, labels in batches(self.cell, dataset, seed=self.seed, epoch=epoch):
                for _ in range(settings.steps):
                    step(images, labels, rate)

    def _gradients(self, images: Tensor, labels: Tensor) -> list[Tensor]:
        classes = torch.log_softmax(self.network(images).logits, 1)
        loss = -classes[torch.arange(len(labels)), labels].mean()
        return list(torch.autograd.grad(loss, list(self.network.parameters())))

    def _clip(self, weight: Tensor) -> None:
        self.outside += int((weight.abs() > 1).sum())
        weight.copy_(torch.where(weight > 1, 1.0, torch.where(weight < -1, -1.0, weight)))

    def _bwn(self, images: Tensor, labels: Tensor, rate: float) -> None:
        """Centre, clamp, put away, binarise, find gradients, put back, scale them, step."""
        tricks = self.cell.quantization
        real = []
        with torch.no_grad():
            for weight in self.binary:
                if tricks.center:
                    weight -= weight.sum(dim=1, keepdim=True) / weight.shape[1]
                if tricks.clamp:
                    self._clip(weight)
                real.append(weight.clone())
                alpha = weight.abs().flatten(1).sum(dim=1) / weight[0].numel()
                weight.copy_(signs(weight) * alpha[:, None, None, None])
        gradients = self._gradients(images, labels)
        with torch.no_grad():
            for weight, before in zip(self.binary, real, strict=True):
                weight.copy_(before)
            found = {id(p): g for p, g in zip(self.network.parameters(), gradients, strict=True)}
            for weight in self.binary:
                number, channels = weight[0].numel(), weight.shape[1]
                factors = weight.abs().flatten(1).sum(dim=1)[:, None, None, None] / number
                factors = torch.where(weight.abs() >= 1, 0.0, factors) + 1 / number
                if tricks.scale_gradient:
                    factors = factors * (1 - 1 / channels) * number
                found[id(weight)] = found[id(weight)] * factors
            self.sgd.step(tuple(found[id(p)] for p in self.network.parameters()), rate)

    def _binary_connect(self, images: Tensor, labels: Tensor, rate: float) -> None:
        """Put away, binarise, find gradients, put back, step with the layer's own rate, clip."""
        settings = self.cell.student
        real = [weight.detach().clone() for weight in self.binary]
        with torch.no_grad():
            for weight in self.binary:
                weight.copy_(signs(weight))
        gradients = self._gradients(images, labels)
        with torch.no_grad():
            for weight, before in zip(self.binary, real, strict=True):
                weight.copy_(before)
            for index, (parameter, gradient) in enumerate(
                zip(self.network.parameters(), gradients, strict=True)
            ):
                scale = 1.0
                if self.cell.quantization.scale_rate and any(parameter is weight for weight in self.binary):
                    places = parameter[0, 0].numel()
                    coefficient = (1.5 / (places * parameter.shape[1] + places * parameter.shape[0])) ** 0.5
                    scale = 1 / coefficient**2
                for velocity, part in (
                    (self.of_gradients[index], gradient),
                    (self.of_decay[index], settings.weight_decay * parameter),
                ):
                    velocity.mul_(settings.momentum).add_(part)
                parameter -= rate * (scale * self.of_gradients[index] + self.of_decay[index])
            for weight in self.binary:
                self._clip(weight)


@pytest.mark.parametrize(("method", "off"), VARIANTS)
@pytest.mark.parametrize("seeds", [SEEDS[:1], SEEDS], ids=["alone", "packed"])
def test_the_loop_takes_the_authors_steps(
    dataset: Dataset, method: str, off: tuple[str, ...], seeds: Sequence[int]
) -> None:
    cell = one_bit_cell(method, off)
    runs = start(cell, dataset, seeds)
    references = [Reference(cell, run) for run in runs]
    train(cell, dataset, runs)
    for run, reference in zip(runs, references, strict=True):
        reference.train(dataset)
        assert len(run.history) == 3
        if method == "binary_connect" or "scale_gradient" not in off:
            assert reference.outside or "clamp" in off, "no weight was there to be clamped"
        for name, expected in reference.network.named_parameters():
            ours = run.student.backbone.get_parameter(name)
            torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("method", TRICKS)
@pytest.mark.parametrize(
    "values",
    [
        {"student__steps": 2},
        {"student__momentum": 0.0},
        {"student__weight_decay": 0.1},
        {"student__network": "preact-bottleneck-11", "student__learning_rate": 0.05},
    ],
    ids=lambda values: next(iter(values)),
)
def test_the_loop_takes_the_authors_steps_with_other_settings(
    dataset: Dataset, method: str, values: dict[str, object]
) -> None:
    cell = one_bit_cell(method, **values)
    (run,) = start(cell, dataset, SEEDS[:1])
    reference = Reference(cell, run)
    train(cell, dataset, [run])
    reference.train(dataset)
    for name, expected in reference.network.named_parameters():
        torch.testing.assert_close(run.student.backbone.get_parameter(name), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("method", TRICKS)
def test_every_trick_changes_the_weights(dataset: Dataset, method: str) -> None:
    dumps = []
    for off in [(), *((trick,) for trick in TRICKS[method])]:
        cell = one_bit_cell(method, off)
        (run,) = start(cell, dataset, SEEDS[:1])
        train(cell, dataset, [run])
        dumps.append(dump_weights(run.student.backbone))
    assert len(set(dumps)) == len(dumps)


def first_weights(dataset: Dataset, cell: Cell) -> dict[str, Tensor]:
    (run,) = start(cell, dataset, SEEDS[:1])
    return dict(run.student.backbone.named_parameters())


def test_binary_connect_starts_uniform_or_as_all_others(dataset: Dataset) -> None:
    usual = first_weights(dataset, one_bit_cell("supervised"))
    literal = first_weights(dataset, one_bit_cell("binary_connect", ("uniform_start",)))
    assert all(torch.equal(literal[name], usual[name]) for name in usual)
    uniform = first_weights(dataset, one_bit_cell("binary_connect"))
    for name, value in uniform.items():
        drawn = value.dim() > 1  # weights of layers; the others are biases and BatchNorm's
        assert torch.equal(value, usual[name]) != drawn, name
        if drawn:
            assert 0.8 < float(value.detach().abs().max()) <= 1, name


def test_weights_of_a_file_stay_what_they_are(dataset: Dataset, tmp_path) -> None:  # type: ignore[no-untyped-def]
    usual = start(one_bit_cell("supervised"), dataset, (5,))[0].student.backbone
    file = tmp_path / "student.pt"
    torch.save(usual.state_dict(), file)
    started = first_weights(dataset, one_bit_cell("binary_connect", student__file=str(file)))
    assert all(torch.equal(value, usual.get_parameter(name)) for name, value in started.items())
