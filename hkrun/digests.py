"""Short digests: what names cells, teachers, tables and measurements."""

import hashlib


def short_digest(content: bytes | str) -> str:
    """The first 12 hex digits of the SHA-256; of text, of its UTF-8."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:12]
