#!/usr/bin/env bash
# Guess: a timm network's `get_classifier()` is an nn.Linear, as `reset_classifier` suggests and ResNet, ViT and
#        EfficientNet have it: its `in_features` is the width of the descriptor, its weight has two dimensions.
# Truth: it is a 1x1 nn.Conv2d in ResNetV2, DLA and DPN, a tuple of two heads in LeViT and EfficientFormer, a
#        ModuleList in CrossViT, a module with a head inside in RepViT.
# Hurts: who reads the descriptor's width from the classifier to build a regressor for distillation, or takes its weight
#        as class prototypes [classes, width]: an AttributeError in some families, a shape [classes, width, 1, 1] in others.
. "$(dirname "$0")/isolated.bash"
packages torch==2.15.0 torchvision==0.29.2 timm==1.0.31

HF_HUB_OFFLINE=1 python -W ignore - <<'PYTHON'
import timm
import torch

EXPECTED = {
    "resnet18": "Linear",
    "vit_tiny_patch16_224": "Linear",
    "resnetv2_50": "Conv2d",
    "dla34": "Conv2d",
    "dpn68": "Conv2d",
    "levit_128": "tuple",
    "efficientformer_l1": "tuple",
    "crossvit_9_240": "ModuleList",
    "repvit_m0_9": "RepVitClassifier",
}
print("torch", torch.__version__, "timm", timm.__version__)
for name, expected in EXPECTED.items():
    with torch.device("meta"):
        network = timm.create_model(name, pretrained=False, num_classes=10)
    classifier = network.get_classifier()
    width = getattr(classifier, "in_features", "no in_features")
    weight = getattr(classifier, "weight", None)
    shape = "no weight" if weight is None else tuple(weight.shape)
    print(f"{name}: {type(classifier).__name__}, {width}, weight {shape}; num_features {network.num_features}")
    assert type(classifier).__name__ == expected
    assert hasattr(classifier, "in_features") == (expected == "Linear")
    if expected == "Conv2d":
        assert tuple(weight.shape[2:]) == (1, 1)
PYTHON
