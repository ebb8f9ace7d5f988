"""The token of Ray's clusters: found where Ray looks for it, readable by its user alone."""

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from hkrun.errors import ResourceError

TOKEN_VARIABLE, PATH_VARIABLE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def default_path() -> Path:
    """Where Ray keeps the token of a user."""
    return Path.home() / ".ray" / "auth_token"


def ensure_token() -> None:
    """Makes sure that there is a token, and only the user can read it; Ray's own file is readable by all.

    Raises:
        ResourceError: It cannot be written.
    """
    if os.environ.get(TOKEN_VARIABLE) or os.environ.get(PATH_VARIABLE):
        return
    path = default_path()
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not path.exists():
            descriptor, written = tempfile.mkstemp(dir=path.parent)  # 0600
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
            with suppress(FileExistsError):
                os.link(written, path)  # never over one that another process has just made
            Path(written).unlink()
        path.chmod(0o600)
    except OSError as error:
        raise ResourceError(
            f"{path}: cannot write Ray's token ({error}); RAY_AUTH_TOKEN may hold one instead"
        ) from error


def find_token() -> str | None:
    """The user's token, in Ray's order: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token.

    A file in the home directory is made readable by the user alone. None where there is no token.

    Raises:
        ResourceError: Its file cannot be read.
    """
    if token := os.environ.get(TOKEN_VARIABLE, "").strip():
        return token
    named = os.environ.get(PATH_VARIABLE)
    path = Path(named) if named else default_path()
    try:
        if not named and path.exists():
            path.chmod(0o600)
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        if named:
            raise ResourceError(f"{PATH_VARIABLE}={named}: no such file; it must hold the token") from None
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ResourceError(f"{path}: cannot read Ray's token: {error}") from error
