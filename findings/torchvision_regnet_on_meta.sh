#!/usr/bin/env bash
# Guess: any torchvision network can be built under `torch.device("meta")`, for its shapes without its memory.
# Truth: RegNets cannot: they compute their widths with tensors and read these back as numbers, which a tensor on
#        meta has not. All 15 raise NotImplementedError; the 65 other classifiers build.
# Hurts: tools that look at networks before they build them, such as counts of parameters over a list of names. The
#        message is of a copy "out of meta tensor", as if the network had been moved.
. "$(dirname "$0")/isolated.bash"
packages torch==2.15.0 torchvision==0.29.2

python -W ignore - <<'PYTHON'
import torch
import torchvision
from torchvision.models import get_model, list_models

print("torch", torch.__version__, "torchvision", torchvision.__version__)
built, refused = [], {}
for name in list_models(module=torchvision.models):
    try:
        with torch.device("meta"):
            network = get_model(name, weights=None)
        assert all(parameter.is_meta for parameter in network.parameters())
        built.append(name)
    except NotImplementedError as error:
        refused[name] = str(error)
print(f"{len(built)} networks are built on meta, {len(refused)} are not: {', '.join(refused)}")
print("regnet_y_400mf:", refused["regnet_y_400mf"])
assert len(built) > 50
assert list(refused) == [name for name in list_models(module=torchvision.models) if name.startswith("regnet")]
assert len(refused) == 15
width = get_model("regnet_y_400mf", weights=None).fc.in_features
print("regnet_y_400mf without meta: built, with", width, "features")
assert width == 440
PYTHON
