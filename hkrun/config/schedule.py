"""The learning rate by epoch."""

from collections.abc import Sequence


def learning_rate(
    epoch: int, *, first: float, epochs: int, drops: Sequence[float], factor: float, warmup_epochs: int
) -> float:
    """The learning rate of one epoch.

    Args:
        epoch: The epoch, from 0.
        first: The rate before any drop.
        epochs: How many epochs there are.
        drops: Fractions of the epochs at which the rate is multiplied with `factor`.
        factor: See `drops`.
        warmup_epochs: Over this many epochs the rate rises linearly, from first / (warmup_epochs + 1).
    """
    # 0.7 * 10 is a little more than 7 in binary: the tolerance lets the drop be at epoch 7 all the same.
    passed = sum(epoch >= fraction * epochs - 1e-9 for fraction in drops)
    warmth = min(1.0, (epoch + 1) / (warmup_epochs + 1))
    return first * factor**passed * warmth
