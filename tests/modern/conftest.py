"""The small data of tests/loop."""

from loop.conftest import dataset

__all__ = ["dataset"]
