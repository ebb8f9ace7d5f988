#!/usr/bin/env bash
# Guess: nn.Identity in the place of each nn.Dropout takes dropout out of a network and changes nothing else.
# Truth: timm's attention reads the rate off its dropout module (`self.attn_drop.p`) when it trains, and gives it to
#        PyTorch's fused attention. With Identity there, ViT and MobileViT run in eval mode, and raise an
#        AttributeError in train mode.
# Hurts: who removes dropout from networks he did not write, to distil or to compare: MobileViTv2, say, trains on,
#        and the first training step of these fails. Setting `p = 0` works for all.
. "$(dirname "$0")/isolated.bash"
packages torch==2.15.0 torchvision==0.29.2 timm==1.0.31

HF_HUB_OFFLINE=1 python -W ignore - <<'PYTHON'
import timm
import torch
from torch import nn


def without_dropout(network, remove):
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout):
                if remove:
                    setattr(module, name, nn.Identity())
                else:
                    child.p = 0.0
    return network


def tried(network, images):
    try:
        return tuple(network(images).shape)
    except AttributeError as error:
        return str(error)


print("torch", torch.__version__, "timm", timm.__version__)
for name in ("vit_tiny_patch16_224", "mobilevit_xxs", "mobilevitv2_050"):
    images = torch.rand(2, 3, 224, 224)
    removed = without_dropout(timm.create_model(name, pretrained=False), remove=True)
    evaluated = tried(removed.eval(), images)
    trained = tried(removed.train(), images)
    zero = tried(without_dropout(timm.create_model(name, pretrained=False), remove=False).train(), images)
    print(f"{name}: Identity, eval: {evaluated}; Identity, train: {trained}; p = 0, train: {zero}")
    assert evaluated == zero == (2, 1000)
    assert trained == ((2, 1000) if name == "mobilevitv2_050" else "'Identity' object has no attribute 'p'")
PYTHON
