"""Files of weights: what `teacher.file` and `student.file` take, and how they refuse what does not fit."""

import collections
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hkrun.config import cell_from_values
from hkrun.data.weights import load_weights
from hkrun.errors import InputError


def small(width=3):
    return nn.Sequential(
        collections.OrderedDict(
            conv=nn.Conv2d(1, width, 3), norm=nn.BatchNorm2d(width), fc=nn.Linear(width, 2)
        )
    )


def trained(width=3):
    """A network of which no value is an initial one."""
    network = small(width)
    for index, tensor in enumerate(network.state_dict().values()):
        tensor.fill_(index + 2)
    return network


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


def load(path, network, section="teacher"):
    load_weights(network, cell_from_values({f"{section}.file": str(path)}), section)


def refusal(path, network, section="teacher"):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load(path, network, section)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    (line,) = caught.value.problems
    start = f"{section}.file: {path}: not weights of this {section}.network: "
    assert line.startswith(start)
    return line.removeprefix(start)


WRAPPINGS = {
    "state_dict": lambda state: state,
    "under model, as RepDistiller saves": lambda state: {"epoch": 240, "model": state, "best_acc": 0.7},
    "under state_dict, as timm saves": lambda state: {"arch": "x", "state_dict": state, "optimizer": {}},
    "under model_state_dict": lambda state: {"model_state_dict": state},
    "under net": lambda state: {"net": state, "acc": 95.0},
    "of DataParallel": lambda state: prefixed(state, "module."),
    "of compile": lambda state: prefixed(state, "_orig_mod."),
    "of DataParallel of compile": lambda state: {"model": prefixed(state, "module._orig_mod.")},
    "of compile of DataParallel": lambda state: {"state_dict": prefixed(state, "_orig_mod.module.")},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("section", ["teacher", "student"])
def test_weights_are_found_in_whatever_checkpoint(tmp_path, wrapping, section):
    source = trained().state_dict()
    torch.save(WRAPPINGS[wrapping](source), tmp_path / "weights.pth")
    network = small()
    load(tmp_path / "weights.pth", network, section)
    found = network.state_dict()
    assert found.keys() == source.keys()
    assert all(torch.equal(found[name], source[name]) for name in source)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_safetensors_file_is_known_by_its_content(tmp_path, prefix):
    source = trained().state_dict()
    save_file(prefixed(source, prefix), tmp_path / "weights.bin")
    network = small()
    load(tmp_path / "weights.bin", network)
    assert all(torch.equal(tensor, source[name]) for name, tensor in network.state_dict().items())


def test_a_network_whose_own_keys_begin_like_a_wrapper_s_keeps_them(tmp_path):
    source = nn.ModuleDict({"module": trained()})
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    network = nn.ModuleDict({"module": small()})
    load(tmp_path / "weights.pth", network)
    assert torch.equal(network["module"].fc.weight, source["module"].fc.weight)


def test_files_from_before_batchnorm_counted_its_batches_are_taken(tmp_path):
    source = {
        name: tensor for name, tensor in trained().state_dict().items() if "num_batches_tracked" not in name
    }
    torch.save(source, tmp_path / "weights.pth")
    network = small()
    load(tmp_path / "weights.pth", network)
    assert network.norm.num_batches_tracked == 0
    assert torch.equal(network.norm.running_var, source["norm.running_var"])


def test_the_first_keys_that_differ_are_named_with_their_shapes(tmp_path):
    torch.save(trained(4).state_dict(), tmp_path / "wider.pth")
    assert refusal(tmp_path / "wider.pth", small()) == (
        "conv.weight has shape (4, 1, 3, 3) in the file and (3, 1, 3, 3) in the network; "
        "conv.bias has shape (4,) in the file and (3,) in the network; "
        "norm.weight has shape (4,) in the file and (3,) in the network; and 4 more"
    )


def test_keys_of_one_side_alone_are_named_with_their_shapes(tmp_path):
    state = trained().state_dict()
    state["head.weight"] = state.pop("fc.weight")
    save_file(state, tmp_path / "renamed.safetensors")
    assert refusal(tmp_path / "renamed.safetensors", small(), "student") == (
        "fc.weight (2, 3) is not in the file; head.weight (2, 3) of the file is not in the network"
    )


def test_a_checkpoint_without_a_state_dict_is_told_by_its_keys(tmp_path):
    torch.save({"epoch": 3, "weights": {"a": 1}}, tmp_path / "odd.pth")
    assert refusal(tmp_path / "odd.pth", small()) == (
        "no state_dict in it, nor under state_dict, model_state_dict, model, net; "
        "its keys are 'epoch', 'weights'"
    )
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    assert refusal(tmp_path / "list.pth", small()) == "it holds a list, no state_dict"


def test_a_pickled_network_is_refused_with_what_to_do(tmp_path):
    torch.save(small(), tmp_path / "whole.pth")
    reason = refusal(tmp_path / "whole.pth", small())
    assert (
        "an object of torch.nn.modules.container.Sequential, which cannot be read without running" in reason
    )
    assert reason.endswith("save its state_dict alone")


@pytest.mark.parametrize(
    "content",
    [b"", b"no weights", b"PK\x03\x04 cut short", b"\x08\0\0\0\0\0\0\0{broken}", b"\xff" * 7 + b"\0{"],
    ids=["empty", "text", "cut", "safetensors without a header", "safetensors of no length"],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "weights.pth").write_bytes(content)
    assert refusal(tmp_path / "weights.pth", small())


def test_without_safetensors_the_extra_is_named(tmp_path, monkeypatch):
    save_file(trained().state_dict(), tmp_path / "weights.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert "run: pip install safetensors" in refusal(tmp_path / "weights.safetensors", small())
