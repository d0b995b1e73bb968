"""Which comments of a batch everybody sees."""

__all__ = ["thinned"]


def thinned(batch: list, most: int) -> list:
    """Return at most so many of a batch, in its order, evenly spread over it."""
    if len(batch) <= most:
        return batch
    return [batch[number * len(batch) // most] for number in range(most)]
