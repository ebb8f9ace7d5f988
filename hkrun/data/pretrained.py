"""torchvision's pretrained weights: what "torchvision" means as a `teacher.file` or `student.file`."""

import contextlib
import sys
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

import torch
from torch import Tensor

from hkrun.data.fetching import patient_sockets, quiet_unless_terminal, reason
from hkrun.errors import DataError
from hkrun.networks import pretrained_file

_SERVER = "https://download.pytorch.org/models"


def fetch_weights(network: str, *, key: str) -> dict[str, Tensor]:
    """The state_dict of a network as torchvision trained it on ImageNet (IMAGENET1K_V1).

    The file is looked for, and kept, where torch.hub keeps such files (below TORCH_HOME). A fetched file is
    used only if its SHA-256 begins as its name says.

    Args:
        network: One of which torchvision has weights.
        key: What named it, for messages: teacher.file or student.file.

    Raises:
        DataError: The file is not there and cannot be fetched, or is damaged.
    """
    file = pretrained_file(network)
    url, folder = f"{_SERVER}/{file}", Path(torch.hub.get_dir()) / "checkpoints"
    wanted = f"put {file} from {url} into {folder}, or name a file of your own with {key}=PATH"
    try:
        # torch.hub announces a download on stdout, which belongs to results.
        with patient_sockets(), quiet_unless_terminal(), contextlib.redirect_stdout(sys.stderr):
            state: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
                url, map_location="cpu", check_hash=True, weights_only=True
            )
    # RuntimeError: a wrong checksum, or a file that was damaged afterwards.
    except (OSError, HTTPException, RuntimeError, EOFError) as error:
        if isinstance(error, HTTPError):
            error.close()  # it is the server's answer too, and would keep the connection
        raise DataError(
            f"{key}: torchvision's {network} cannot be had ({reason(error)}); {wanted}"
        ) from error
    return state
