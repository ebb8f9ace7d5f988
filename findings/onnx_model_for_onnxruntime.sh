#!/usr/bin/env bash
# Guess: the newest onnx and the newest onnxruntime fit: what onnx.helper.make_model makes, onnxruntime loads.
# Truth: make_model stamps the newest IR version that onnx knows, whatever the opset; onnxruntime knows older ones
#        only and refuses the file. torch's exporter stamps an older version, so exported networks load all the same.
# Hurts: who builds or edits graphs by hand, for tests or for packed weights. Give ir_version=10.
. "$(dirname "$0")/isolated.bash"
packages onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6

python - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

value = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"}
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [value["x"]], [value["y"]])
opset = [helper.make_opsetid("", 17)]
print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}")

newest = helper.make_model(graph, opset_imports=opset)
onnx.checker.check_model(newest, full_check=True)
print(f"make_model gives IR version {newest.ir_version}, which onnx's own checker accepts")
try:
    onnxruntime.InferenceSession(newest.SerializeToString())
except Exception as error:
    print(f"onnxruntime: {str(error).splitlines()[0][-70:]}")
    assert "Unsupported model IR version" in str(error)
else:
    raise SystemExit("onnxruntime loads it now")

older = helper.make_model(graph, opset_imports=opset, ir_version=10)
(answer,) = onnxruntime.InferenceSession(older.SerializeToString()).run(None, {"x": np.array([-1, 2], np.float32)})
print(f"with ir_version=10 it loads and answers {answer.tolist()}")
assert answer.tolist() == [0.0, 2.0]
PYTHON
