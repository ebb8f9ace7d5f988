"""Downloads: a silent server is given up, log files get no progress bar; torchvision's pretrained weights."""

import contextlib
import io
import os
import socket
import sys
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

import torch
from torch import Tensor

from hkrun.errors import DataError
from hkrun.networks import pretrained_file

_TIMEOUT_S = 60.0  # for the server to send anything at all
_SERVER = "https://download.pytorch.org/models"


def default_directory() -> Path:
    """Where downloads go when the user names no directory: the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "hkrun"


@contextlib.contextmanager
def patient_sockets() -> Iterator[None]:
    """Lets connections time out, which by default they never do: a silent server would hang the sweep."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def quiet_unless_terminal() -> contextlib.AbstractContextManager[object]:
    """Keeps torchvision's progress bar off log files."""
    return contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())


def reason(error: Exception) -> str:
    """The error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def fetch_weights(network: str, *, key: str) -> dict[str, Tensor]:
    """The state_dict of a network as torchvision trained it on ImageNet (IMAGENET1K_V1).

    The file is looked for, and kept, where torch.hub keeps such files (below TORCH_HOME). A fetched file is
    used only if its SHA-256 begins as its name says. `key` is what named it, for messages: teacher.file or
    student.file.

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
