"""Fixtures that any test may take."""

from s3_server import each_s3_server, radosgw, s3_server, s3_store

__all__ = ["each_s3_server", "radosgw", "s3_server", "s3_store"]
