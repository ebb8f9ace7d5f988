#!/usr/bin/env bash
# Guess: a file of torchvision's weights is the state_dict of the network whose name it has.
# Truth: DenseNet's modules are called norm1 and conv1, and its builders take files that say norm.1 and conv.1, as,
#        by the builder's own comment, the published ones do: they rename the keys on the way. load_state_dict
#        refuses the very file that the builder loads.
# Hurts: who loads a file of weights himself, for want of a network connection or to check it first: the same steps
#        work for ResNet. Shown with a file of the old names made here: nothing is downloaded.
. "$(dirname "$0")/isolated.bash"
packages torch==2.15.0 torchvision==0.29.2

TORCH_HOME=$folder/torch python -W ignore - <<'PYTHON'
import re
from pathlib import Path

import torch
import torchvision
from torchvision.models import DenseNet121_Weights, densenet121

print("torch", torch.__version__, "torchvision", torchvision.__version__)
weights = DenseNet121_Weights.IMAGENET1K_V1
network = densenet121(weights=None)
new = network.state_dict()
old = {
    re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): value
    for name, value in new.items()
    if not name.endswith("num_batches_tracked")  # came to PyTorch after these names
}
file = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
file.parent.mkdir(parents=True)
torch.save(old, file)  # where the builder looks before it downloads
name = "features.denseblock1.denselayer1.norm1.weight"
print("the network's name:", name)
print("the file's name:   ", next(key for key in old if key not in new))
assert name in new
assert name not in old

built = densenet121(weights=weights).state_dict()
same = built.keys() == new.keys() and all(torch.equal(built[key], new[key]) for key in new)
print("densenet121(weights=...) loads the file:", same)
assert same
try:
    network.load_state_dict(weights.get_state_dict())
    told = None
except RuntimeError as error:
    told = str(error)
print("load_state_dict(weights.get_state_dict()):", told and told.splitlines()[1].strip()[:100])
assert "Missing key" in told
assert "Unexpected key" in told
PYTHON
