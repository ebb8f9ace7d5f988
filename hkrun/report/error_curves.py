"""The errors of a cell's runs, in a quarter of their memory where they are whole numbers of test images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_IMAGES = 2**16 - 1  # of which a count takes two bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class ErrorCurves:
    """Test errors in percent, shape [runs, epochs]: read by an index, `[:]` for all, like an array.

    What is read are the very numbers that it was made from.

    Attributes:
        held: The errors, or how many images each is.
        errors_pct: The error of each number of images; None where the errors themselves are held.
    """

    held: NDArray[Any]
    errors_pct: NDArray[np.float64] | None

    @classmethod
    def of(cls, error_pct: NDArray[np.float64], *, num_images: int | None) -> "ErrorCurves":
        """From finite errors, shape [runs, epochs].

        `num_images`: Of the test set; None where that is not known.
        """
        if num_images is not None and num_images <= _MOST_IMAGES and error_pct.size:
            numbers = np.rint(error_pct * (num_images / 100))
            if numbers.min() >= 0 and numbers.max() <= num_images:
                held, errors_pct = numbers.astype(np.uint16), np.zeros(num_images + 1)
                errors_pct[held] = error_pct
                if np.array_equal(errors_pct[held], error_pct):  # else one number has several errors
                    return cls(held=held, errors_pct=errors_pct)
        return cls(held=error_pct, errors_pct=None)

    @property
    def shape(self) -> tuple[int, ...]:
        """Numbers of runs and of epochs."""
        return self.held.shape

    def __getitem__(self, place: Any) -> Any:
        found = self.held[place]
        return found if self.errors_pct is None else self.errors_pct[found]
