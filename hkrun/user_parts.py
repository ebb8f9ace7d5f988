"""Parts that are not built in, named `package.module:name`: found, checked, and identified by their source.

They are the user's own, or networks of a library, `torchvision:NAME` and `timm:NAME`, identified by its
version. What they need is imported when such a name is used, and never before: it may import torch, this
module does not.
"""

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from hkrun.errors import InputError

# One name is one part, and so one cell_id: no spaces, no dotted names within the module.
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_FORM = "package.module:name"
_NOT_THE_USERS = ("hkrun", "torch")  # their functions in a term of the user's own are theirs to version
# Libraries whose networks are named like parts of the user's own.
_LIBRARIES = ("torchvision", "timm")
# In the environment of Ray's workers: where the process that started them finds modules not installed.
DRIVER_FOLDERS = "HKRUN_DRIVER_FOLDERS"


@dataclass(frozen=True, kw_only=True)
class OwnShape:
    """What an own network says of itself before it is built.

    Attributes:
        stem_width: Channels of what enters its first stage.
        widths: Output channels of each stage, first to last.
        descriptor_width: Length of its descriptor.
    """

    stem_width: int
    widths: tuple[int, ...]
    descriptor_width: int


def is_own(name: str) -> bool:
    """Whether a name is meant for a part that is not built in: it holds a colon, as no built-in one does."""
    return ":" in name


def library_of(name: str) -> str:
    """The library that a network comes from; empty for a part of the user's own."""
    library = name.partition(":")[0]
    return library if library in _LIBRARIES else ""


def read_shape(name: str) -> OwnShape:
    """The shape of an own network, from its attributes `widths`, `stem_width` and `descriptor_width`.

    The last is the width of the last stage where it has none.

    Raises:
        InputError: It cannot be imported, or says nothing valid of its shape.
    """
    network = load_part(name)
    widths, stem_width = getattr(network, "widths", None), getattr(network, "stem_width", None)
    if not isinstance(widths, tuple) or not widths or not all(_is_width(width) for width in widths):
        raise InputError(
            f"{name}: a network needs the attribute widths, a tuple of the channels of each stage's output, "
            f"such as widths = (16, 32, 64); it is {widths!r}"
        )
    if not isinstance(stem_width, int) or not _is_width(stem_width):
        raise InputError(
            f"{name}: a network needs the attribute stem_width, the channels of what enters the first stage, "
            f"such as stem_width = 16; it is {stem_width!r}"
        )
    descriptor_width = getattr(network, "descriptor_width", widths[-1])
    if not isinstance(descriptor_width, int) or not _is_width(descriptor_width):
        raise InputError(
            f"{name}: descriptor_width, the length of the descriptor, must be a whole number from 1; "
            f"it is {descriptor_width!r}"
        )
    return OwnShape(stem_width=stem_width, widths=widths, descriptor_width=descriptor_width)


def check_dataset(name: str) -> None:
    """Checks that the loader of an own data set can be imported.

    Raises:
        InputError: It cannot.
    """
    if library := library_of(name):
        raise InputError(f"{name}: {library} is a library of networks here, not of data sets")
    load_part(name)


def load_part(name: str) -> Callable[..., Any]:
    """The class or function of that name. Modules are found on sys.path and in the working directory.

    Raises:
        InputError: It is not there, cannot be imported, or cannot be called.
    """
    if library_of(name):
        return importlib.import_module("hkrun.models.library").find_network(name)  # type: ignore[no-any-return]
    part = load_attribute(name)
    if not callable(part):
        raise InputError(f"{name}: must be a class or a function; it is of type {type(part).__name__}")
    return part


def load_attribute(name: str) -> object:
    """What has that name, of any type.

    Raises:
        InputError: It is not there, or cannot be imported.
    """
    if _NAME.fullmatch(name) is None:
        raise InputError(f"{name!r}: a part of your own is named {_FORM}, such as mynets.small:SmallNet")
    module_name, _, attribute = name.partition(":")
    module = _import(module_name, name)
    try:
        found: object = getattr(module, attribute)
    except AttributeError:
        hidden = _describe_hidden(module_name)
        raise InputError(f"{name}: module {module_name} has no {attribute!r}{hidden}") from None
    return found


@functools.cache
def identify_source(name: str) -> str:
    """The SHA-256 in hex of the source behind an own part, as it was when this process first asked.

    The source is the module's file; of a module in a package, all Python files of the outermost package, for
    what a module does also depends on its neighbours. To a part that names further `source_modules`, as a
    term does that of its function, their source belongs too. A library's network is identified by the library
    and its public version, such as "timm 1.0.31": another version may build another network.

    Raises:
        InputError: The module is not there, or has no source.
    """
    if library := library_of(name):
        return f"{library} {importlib.metadata.version(library).partition('+')[0]}"
    further = getattr(load_attribute(name), "source_modules", frozenset[str]())
    own = [module for module in further if module.partition(".")[0] not in _NOT_THE_USERS]
    files = {file for module in (name.partition(":")[0], *own) for file in _source_files(module, name)}
    return _hash_files(sorted(files, key=lambda file: file[1]))


def _source_files(module_name: str, name: str) -> list[tuple[str, Path]]:
    """The files behind a module, labelled."""
    _add_working_directory()
    outermost = module_name.partition(".")[0]
    spec = importlib.util.find_spec(outermost)
    if spec is not None and spec.origin is not None and spec.submodule_search_locations:
        root = Path(spec.submodule_search_locations[0])
        return [(str(path.relative_to(root)), path) for path in sorted(root.rglob("*.py"))]
    module = _import(module_name, name)
    origin = getattr(module, "__file__", None)
    if origin is None or not origin.endswith(".py"):
        raise InputError(f"{name}: module {module_name} has no Python source that could identify it")
    return [(Path(origin).name, Path(origin))]


def check_source(name: str, source: str) -> None:
    """Checks that an own part's source here is what a configuration was made with.

    Raises:
        InputError: It is not.
    """
    found = identify_source(name)
    if found != source:
        versions = f" (here is {found}, there was {source})" if library_of(name) else ""
        raise InputError(
            f"{name}: its source here is not the one of this configuration{versions}; "
            "the sweep's own command makes new runs with the new source"
        )


def _is_width(value: object) -> bool:
    return type(value) is int and value >= 1


def _import(module_name: str, name: str) -> object:
    _add_working_directory()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(
                f"{name}: no module {error.name!r} in the working directory or on Python's path (PYTHONPATH)"
                f"{_describe_hidden(module_name)}"
            ) from error
        raise InputError(f"{name}: {_describe(error)}") from error
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything
        raise InputError(f"{name}: {_describe(error)}") from error


def _describe(error: Exception | SystemExit) -> str:
    """What went wrong in the user's module, and where, in one line."""
    told = f"its import fails: {type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, SyntaxError):  # which names its place itself
        return told
    frames = traceback.extract_tb(error.__traceback__)
    not_the_users = (str(Path(__file__).parent), "<")  # what a declaration raises is about its caller's line
    frame = next(
        (each for each in reversed(frames) if not each.filename.startswith(not_the_users)), frames[-1]
    )
    missed = getattr(error, "obj", None) if isinstance(error, AttributeError) else error
    missed_name = getattr(missed, "name", None) or getattr(missed, "__name__", None)
    hidden = _describe_hidden(missed_name) if isinstance(missed_name, str) else ""
    return f"{told} ({Path(frame.filename).name}:{frame.lineno}){hidden}"


def _describe_hidden(module_name: str) -> str:
    """Says so where another module of that name is found before the user's own; else nothing."""
    outermost = module_name.partition(".")[0]
    files = (Path(folder, file) for folder in _own_folders() for file in (f"{outermost}.py", outermost))
    own = next((file for file in files if file.exists()), None)
    with suppress(ValueError):  # a module that was not imported from anywhere
        spec = importlib.util.find_spec(outermost)
        if own is not None and spec is not None and not _is_of(spec, own):
            return f"; {own} is hidden by the library {outermost} ({spec.origin}): rename it"
    return ""


def _is_of(spec: ModuleSpec, own: Path) -> bool:
    origins = [spec.origin or "", *(spec.submodule_search_locations or ())]
    return any(Path(origin).resolve() == own.resolve() for origin in origins)


def _own_folders() -> list[str]:
    """Where modules lie that are not installed: in the driver's folders and in this process's directory."""
    driver = os.environ.get(DRIVER_FOLDERS, "").split(os.pathsep)
    return [folder for folder in (*driver, str(Path.cwd())) if folder]


def _add_working_directory() -> None:
    """Lets modules beside the user's files be found; last, so that they hide nothing."""
    sys.path.extend(folder for folder in dict.fromkeys(_own_folders()) if folder not in sys.path)


def _hash_files(files: Iterable[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for label, path in files:
        digest.update(f"{label}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
