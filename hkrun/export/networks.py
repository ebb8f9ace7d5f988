"""Backbones out of the store, and their safetensors file: written, and read again without a store."""

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hkrun.errors import InputError, StoreError
from hkrun.methods import METHODS
from hkrun.models import build_network
from hkrun.models.bits import pack
from hkrun.models.quantized import quantize
from hkrun.store import Store

METADATA_KEY = "hkrun"


@dataclass(frozen=True, kw_only=True)
class Description:
    """What it takes to build an exported network, and to prepare its images.

    Attributes:
        network: Its name, such as preact-20.
        quantizer: How its weights are quantised; empty for full precision.
        num_classes: Length of its logits.
        in_channels: Channels of its images.
        mean: Of each channel, subtracted from images scaled to 0..1.
        std: Of each channel; what is left is divided by it.
        classes: Names, in the order of the logits.
    """

    network: str
    quantizer: str
    num_classes: int
    in_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]


def quantizer_of(method: str) -> str:
    """How a method leaves the student's weights quantised; empty for full precision."""
    return METHODS[method].stages[-1].quantizer if method in METHODS else ""


def load_student(store: Store, cell_id: str, seed: int, description: Description) -> nn.Module:
    """The trained student's backbone in float32, in eval mode.

    Raises:
        StoreError: Its weights are damaged, or not those of the network.
    """
    backbone = _build(description)
    where = f"{store.place}: {store.run_folder(cell_id, seed)}"
    _load(backbone, _read_state(store.student(cell_id, seed)), where=where)
    return backbone


def load_teacher(store: Store, teacher_id: str, description: Description) -> nn.Module:
    """A teacher's backbone, without its attention sub-network; as `load_student`."""
    backbone = _build(description)
    state = _read_state(store.teacher_weights(teacher_id))
    prefix = "backbone."
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    _load(backbone, own, where=f"{store.place}: {store.teacher_folder(teacher_id)}")
    return backbone


def to_safetensors(backbone: nn.Module, description: Description) -> bytes:
    """A backbone as the content of a safetensors file. Quantised weights are packed, so it is used up.

    The tensors have the names of the backbone's state_dict; the metadata has the `Description`, and shape and
    bits per weight of each packed layer, as JSON under "hkrun".
    """
    from safetensors.torch import save

    packed = {
        name: {"shape": weights.shape, "bits": weights.bits} for name, weights in pack(backbone).items()
    }
    about = json.dumps({**asdict(description), "packed": packed}, ensure_ascii=False)
    content: bytes = save(
        {name: tensor.contiguous() for name, tensor in backbone.state_dict().items()},
        metadata={METADATA_KEY: about},
    )
    return content


def load_network(path: str | Path) -> nn.Module:
    """The network of a safetensors file that `hkrun export` wrote, in eval mode.

    It maps normalised images, [B, C, H, W], to `hkrun.models.Features`.

    Raises:
        InputError: There is no such file, or another program wrote it.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return from_safetensors(content, where=str(path))


def from_safetensors(content: bytes, *, where: str) -> nn.Module:
    """The network of a file's content; see `load_network`. `where` is the file in messages."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors, about = load(content), _metadata(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{where}: not a file of `hkrun export`: {error}") from error
    backbone = _build(Description(**about))
    pack(backbone)
    backbone.load_state_dict(tensors)
    return backbone


def _metadata(content: bytes) -> dict[str, Any]:
    """The description in a safetensors file: 8 bytes of length, little-endian, then a JSON header."""
    length = int.from_bytes(content[:8], "little")
    about: dict[str, Any] = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][METADATA_KEY])
    del about["packed"]  # for readers without hkrun; the network's layers have the shapes
    return {name: tuple(value) if isinstance(value, list) else value for name, value in about.items()}


def _build(description: Description) -> nn.Module:
    backbone = build_network(
        description.network, num_classes=description.num_classes, in_channels=description.in_channels
    )
    if description.quantizer:
        quantize(backbone, description.quantizer)
    return backbone.eval()


def _read_state(content: bytes) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def _load(backbone: nn.Module, state: dict[str, Tensor], *, where: str) -> None:
    try:
        backbone.load_state_dict(state)  # into float32, whatever it was trained in
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise StoreError(f"{where}: the weights are not those of its configuration: {reason}") from None
