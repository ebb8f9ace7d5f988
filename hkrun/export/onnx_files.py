"""A backbone as an ONNX model, quantised weights packed within it, and a session that runs it."""

import contextlib
import io
import logging
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from hkrun.errors import HkrunError
from hkrun.models.bits import PackedWeights, pack_weights
from hkrun.models.quantized import quantized_layers

if TYPE_CHECKING:
    import onnx
    import onnxruntime

IMAGES, LOGITS = "images", "logits"


class _Logits(nn.Module):
    """A backbone that returns its logits alone, with the quantised layers' weights as further inputs.

    As inputs, the weights stay apart in the graph: nothing folds a BatchNorm into them.
    """

    def __init__(self, backbone: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.network = backbone
        self._names = names

    def forward(self, images: Tensor, *weights: Tensor) -> Tensor:
        given = dict(zip(self._names, weights, strict=True))
        logits: Tensor = functional_call(self.network, given, (images,)).logits
        return logits


def to_onnx(backbone: nn.Module, image: Tensor, *, about: dict[str, str]) -> bytes:
    """A backbone as the content of an ONNX file that maps "images" [batch, C, H, W] to "logits".

    Quantised weights are in it as bits, in the layout of `hkrun.models.bits`; the first nodes unpack them,
    which a runtime does once, on loading. The backbone's quantised layers are used up.

    Args:
        backbone: In eval mode, in float32.
        image: One normalised image, [C, H, W], for its size.
        about: Goes into the model's metadata.

    Raises:
        HkrunError: The model unpacks other weights than the backbone has.
    """
    packed = {}
    for name, layer in quantized_layers(backbone).items():
        packed[f"{name}.weight"] = pack_weights(layer)
        layer.weight.data = layer.quantizer(layer.weight).detach()
        layer.quantizer = nn.Identity()
    model = _trace(backbone, image, weights=list(packed))
    inputs = [given for given in model.graph.input if given.name not in packed]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for index, (name, weights) in enumerate(packed.items()):
        _add_unpacking(model.graph, name, weights, position=index * _NODES_PER_WEIGHT)
    _check_unpacking(model, image, {name: backbone.get_parameter(name).detach().numpy() for name in packed})
    for key, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return _checked(model)


def start_session(content: bytes, *, threads: int) -> "onnxruntime.InferenceSession":
    """An onnxruntime session of a model on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run_session(session: "onnxruntime.InferenceSession", images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits of normalised images."""
    logits: NDArray[np.float32] = session.run([LOGITS], {IMAGES: images})[0]
    return logits


def _trace(backbone: nn.Module, image: Tensor, *, weights: list[str]) -> "onnx.ModelProto":
    """The graph of a backbone in eval mode; without the exporter's notes, which outweigh small networks."""
    # Two images: a batch of one would be taken for a constant.
    given = (torch.stack([image, image]), *(backbone.get_parameter(name) for name in weights))
    shapes: dict[str, Any] = {"images": {0: torch.export.Dim("batch")}}
    if weights:
        shapes["weights"] = tuple(None for _ in weights)
    network = _Logits(backbone, weights).eval()
    with torch.no_grad(), _quiet():
        program = torch.export.export(network, given, dynamic_shapes=shapes, strict=False)
        exported: Any = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[IMAGES, *weights],
            output_names=[LOGITS],
            external_data=False,
            verbose=False,
        )
    model: onnx.ModelProto = exported.model_proto
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        noted.ClearField("metadata_props")
    for node in graph.node:
        node.ClearField("doc_string")
    graph.ClearField("value_info")
    for tensor in (*graph.input, *graph.output):
        axis = tensor.type.tensor_type.shape.dim[0]
        if tensor.name in (IMAGES, LOGITS):
            axis.dim_param = "batch"
    return model


_NODES_PER_WEIGHT = 8


def _add_unpacking(graph: "onnx.GraphProto", name: str, weights: PackedWeights, *, position: int) -> None:
    """Adds the nodes that make a tensor of quantised weights of their bits, at a position of the graph."""
    from onnx import TensorProto, helper, numpy_helper

    def constant(part: str, values: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(values), f"{name}.{part}"))
        return f"{name}.{part}"

    nodes: list[Any] = []

    def add(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    per_byte = 8 // weights.bits
    shifts = np.arange(per_byte, dtype=np.uint8)[None] * np.uint8(weights.bits)
    scales = weights.scales.numpy()
    # What each field stands for, and the factor of each filter beside it.
    positive, negative = (np.float32(1), np.float32(1)) if len(scales) > 1 else (scales[0, 0], scales[0, -1])
    values = [-negative, positive] if weights.bits == 1 else [np.float32(0), positive, -negative]
    factors = scales[:, 0] if len(scales) > 1 else np.ones(1, np.float32)
    factors = factors.reshape(-1, *[1] * (len(weights.shape) - 1))

    packed = constant("packed", weights.packed.numpy()[:, None])
    shifted = add("BitShift", [packed, constant("shifts", shifts)], f"{name}.shifted", direction="RIGHT")
    mask = constant("mask", np.array(2**weights.bits - 1, np.uint8))
    fields = add("BitwiseAnd", [shifted, mask], f"{name}.fields")
    row = add("Reshape", [fields, constant("row", np.array([-1]))], f"{name}.flat")
    ends = [constant("first", np.array([0])), constant("last", np.array([math.prod(weights.shape)]))]
    cut = add("Slice", [row, *ends], f"{name}.cut")
    shaped = add("Reshape", [cut, constant("shape", np.array(weights.shape))], f"{name}.shaped")
    indices = add("Cast", [shaped], f"{name}.indices", to=TensorProto.INT32)
    taken = add("Gather", [constant("values", np.stack(values)), indices], f"{name}.unscaled")
    add("Mul", [taken, constant("factors", factors)], name)
    assert len(nodes) == _NODES_PER_WEIGHT
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*rest[:position], *nodes, *rest[position:]])


def _check_unpacking(
    model: "onnx.ModelProto", image: Tensor, weights: Mapping[str, NDArray[np.float32]]
) -> None:
    """Compares the weights that onnxruntime unpacks with the network's, to the bit.

    Logits would not always show a mistake: where signs are computed with, a few of them may differ.
    """
    import onnx

    if not weights:
        return
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    for name, values in weights.items():
        shown.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, values.shape)
        )
    session = start_session(shown.SerializeToString(), threads=1)
    unpacked = session.run(list(weights), {IMAGES: image[None].numpy()})
    for (name, values), found in zip(weights.items(), unpacked, strict=True):
        if not np.array_equal(found, values):
            raise HkrunError(
                f"{name}: the ONNX file unpacks {np.count_nonzero(found != values)} of {values.size} weights "
                "otherwise than the network; nothing was written"
            )


def _checked(model: "onnx.ModelProto") -> bytes:
    import onnx

    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what torch's exporter says to its developers from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            open(os.devnull, "w") as nowhere,  # noqa: PTH123
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
