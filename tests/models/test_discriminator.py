"""The discriminator's architecture."""

import pytest
import torch

from hkrun.models import Discriminator, initialise


def build(num_classes, *, category):
    network = Discriminator(num_classes, num_classes=num_classes if category else 0)
    initialise(network, torch.Generator().manual_seed(0))
    return network


@pytest.mark.parametrize("num_classes", [10, 100])
def test_three_linear_layers_of_the_class_number(num_classes):
    c = num_classes
    with_classes = sum(parameter.numel() for parameter in build(c, category=True).parameters())
    assert with_classes == 2 * (c * c + c) + c * (c + 1) + (c + 1)
    without = sum(parameter.numel() for parameter in build(c, category=False).parameters())
    assert without == 2 * (c * c + c) + c + 1


def test_verdict_equals_a_plain_loop():
    network = build(3, category=True).double()
    logits = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 4
    output = network(logits)
    layers = [
        (layer.weight.detach().tolist(), layer.bias.detach().tolist())
        for layer in (*network.hidden, network.output)
    ]
    for row, image in enumerate(logits.tolist()):
        values = image
        for depth, (weight, bias) in enumerate(layers):
            values = [
                b + sum(w * value for w, value in zip(weights, values, strict=True))
                for weights, b in zip(weight, bias, strict=True)
            ]
            if depth < 2:
                values = [value if value > 0 else 0.2 * value for value in values]
        assert float(output.source[row].detach()) == pytest.approx(values[0], rel=1e-12)
        assert output.classes[row].detach().tolist() == pytest.approx(values[1:], rel=1e-12)


def test_without_the_category_term_there_is_one_output():
    output = build(10, category=False)(torch.zeros(4, 10))
    assert output.source.shape == (4,)
    assert output.classes is None


def test_bfloat16_autocast_gives_verdicts_in_float32():
    network = build(10, category=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(torch.zeros(4, 10))
    assert output.source.dtype == output.classes.dtype == torch.float32


def test_the_hidden_widths_of_anc():
    network = Discriminator(64, hidden=(128, 256, 128), num_classes=0)
    shapes = [tuple(layer.weight.shape) for layer in (*network.hidden, network.output)]
    assert shapes == [(128, 64), (256, 128), (128, 256), (1, 128)]
    assert network(torch.zeros(4, 64)).classes is None
