"""From a calibrated forecast to the size of a position."""

from __future__ import annotations


def exposure(rise_probability: float, volatility: float, target_volatility: float, *, whole_at: float = 1.0) -> float:
    """Share of equity to hold, in [-1, 1]; positive is long.

    ``side * min(1, |2 P - 1| / whole_at) * min(1, target / forecast)``. ``|2 P - 1|`` is the share that Kelly, "A new
    interpretation of information rate", 1956, stakes on an even bet; a market's moves over a horizon are much smaller than
    the stake, so that the whole position may be right at far less certainty: ``whole_at``. The last factor holds the
    volatility of the position at or below the target (Moreira, Muir, "Volatility-managed portfolios", 2017); leverage stays
    with the risk layer.

    Args:
        rise_probability: calibrated, in [0, 1].
        volatility: forecast for the horizon, not negative.
        target_volatility: for the same horizon, positive.
        whole_at: the ``|2 P - 1|`` from which on the position is whole, in (0, 1].
    """
    lean = 2.0 * rise_probability - 1.0
    confidence = max(-1.0, min(1.0, lean / whole_at))
    return confidence * (target_volatility / volatility if volatility > target_volatility else 1.0)
