"""URIs as messages, files and links may show them: without user, password and query."""

import re
from collections.abc import Iterable

# What precedes the last `@` is user and password, which may hold any character, even `/` and `@`. Without a
# `:` only what precedes the first `/` can be a user: an `@` further on belongs to the path.
_USER = re.compile(r"\A(?:[^/@:]*:.*@|[^/@]*@)", re.DOTALL)
# An absolute path of several parts, but neither a URI nor the rest of a relative path.
_FOLDERS = re.compile(r"(?<![\w/:.~-])~?/(?:[^/\s'\"]+/)+")
_URI = re.compile(r"[\w+.-]+://[^\s'\"]+")


def redact(uri: str) -> str:
    """A URI without user, password, query and final slash; what is no URI, such as a path, as it is.

    Where it is unclear what is password and what is path (`s3://host:9000/a@b`), too much goes rather
    than too little.
    """
    scheme, mark, rest = uri.partition("://")
    return f"{scheme}{mark}{_USER.sub('', rest).partition('?')[0].rstrip('/')}" if mark else uri


def redact_text(text: str, *, known: Iterable[str] = ()) -> str:
    """A text with all its URIs redacted.

    Args:
        text: What is to be shown.
        known: URIs that may stand in it and hold spaces or quotes, where it cannot be seen where they end.
    """
    for uri in sorted(filter(None, known), key=len, reverse=True):
        text = text.replace(uri, redact(uri))
    return _URI.sub(lambda found: redact(found[0]), text)


def shorten_paths(text: str) -> str:
    """A text with the last part alone of every absolute path in it: folders tell of users and machines."""
    return _FOLDERS.sub("", text)
