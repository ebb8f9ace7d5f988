#!/usr/bin/env bash
# Guess: ReduceMax and ArgMax of a row with a NaN say so, as numpy, torch and onnx's reference evaluator do.
# Truth: in onnxruntime it depends on where the NaN stands: in the first place it wins, elsewhere it is passed over,
#        so a network that answers NaN still gets a class, and another one than torch would name.
# Hurts: who measures the accuracy of an exported network with ArgMax in the graph: divergence looks like errors.
. "$(dirname "$0")/isolated.bash"
packages onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6

python - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

rows = np.array([[np.nan, 2, 1], [1, np.nan, 3], [1, 2, np.nan]], np.float32)


def run(operator, kind, **attributes):
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, rows.shape)]
    node = helper.make_node(operator, ["x"], ["y"], keepdims=0, **attributes)
    graph = helper.make_graph([node], "graph", ends, [helper.make_tensor_value_info("y", kind, [3])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    (found,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": rows})
    (reference,) = ReferenceEvaluator(model).run(None, {"x": rows})
    print(f"{operator} of {rows.tolist()}:\n  onnxruntime {found.tolist()}, reference {reference.tolist()}")
    return found.tolist(), reference.tolist()


print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}")
found, reference = run("ArgMax", TensorProto.INT64, axis=1)
assert (found, reference) == ([0, 2, 1], [0, 1, 2])
assert rows.argmax(1).tolist() == reference
found, reference = run("ReduceMax", TensorProto.FLOAT, axes=[1])
assert np.isnan(reference).all()
assert np.isnan(found[0]) and found[1:] == [3.0, 2.0]
PYTHON
