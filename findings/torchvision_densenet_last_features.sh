#!/usr/bin/env bash
# Guess: create_feature_extractor gives the output of a node, whatever else is asked for; so does a forward hook.
# Truth: DenseNet's forward applies an in-place ReLU to what its last module, features.norm5, gives. Asked for alone,
#        the node is the BatchNorm's output, with its negative values; asked for together with the classifier, or by a
#        hook, the ReLU has changed that very tensor.
# Hurts: who distils or probes the last features of a DenseNet: the same node name gives two different knowledges, and
#        the teacher's and student's extractors need not agree.
. "$(dirname "$0")/isolated.bash"
packages torch==2.15.0 torchvision==0.29.2

python -W ignore - <<'PYTHON'
import torch
import torchvision
from torchvision.models import densenet121
from torchvision.models.feature_extraction import create_feature_extractor

print("torch", torch.__version__, "torchvision", torchvision.__version__)
torch.manual_seed(0)
network, images = densenet121(weights=None).eval(), torch.randn(2, 3, 64, 64)
node, hooked = "features.norm5", []
with torch.no_grad():
    alone = create_feature_extractor(network, [node])(images)[node]
    beside = create_feature_extractor(network, [node, "classifier"])(images)[node]
    network.features.norm5.register_forward_hook(lambda module, given, output: hooked.append(output))
    network(images)
print(f"smallest value of {node}, asked for alone: {alone.min():.3f}")
print(f"asked for with the classifier: {beside.min():.3f}")
print(f"by a hook: {hooked[0].min():.3f}")
assert alone.min() < -1
torch.testing.assert_close(beside, alone.relu())
torch.testing.assert_close(hooked[0], alone.relu())
print("As described: what the node gives depends on what else is asked for.")
PYTHON
