"""The arithmetic of a decision, compiled to machine code, bar by bar.

A decision needs one bar. Some two hundred operations on so few numbers take torch a millisecond and more for the calls alone,
and longer where the machine did something else before; as one loop they take a tenth of it. A bar's numbers are made by the
same instructions in the same order whatever else is computed with it, so that replay, paper and live have the same bits by
construction. Products may be fused with sums; nothing else is reordered.

All of it stands in this file, see :mod:`memory_store.machine_code`. Constants are numbers of 32 bits, as those of Python would
turn all they meet into 64.
"""

from __future__ import annotations

from math import log, pi, sqrt
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from memory_store.machine_code import compiled

FloatRows = npt.NDArray[np.float32]

OUTCOME_LIMIT: Final = np.float32(5.0)
"""Outcomes beyond this many volatilities count as this many: one crash must not drown 31 neighbours."""
ORDINARY_SIZE: Final = np.float32(sqrt(2.0 / pi))
"""Mean size of a normal number of volatility one."""
PRIOR_SHARE: Final = np.float32(0.01)
"""Share of the vote that speaks for the expected volatility whatever the neighbours say; keeps the logarithm finite."""
LARGEST_BELIEF: Final = np.float32(6.0)
"""Bound of the logarithms of patience, trust and bound, either way."""
LARGEST_SHARPNESS: Final = np.float32(1000.0)
"""Beyond it a threshold is a step, and its gradient nothing."""
TINY: Final = np.float32(1e-8)
"""Keeps gradients of logarithms and roots finite at zero."""
RETURNS: Final = 0
"""Kind of a head whose numbers are returns."""
DIRECTION: Final = 1
"""Kind of a head whose numbers are logits of down, flat and up."""
POSITION: Final = 2
"""Kind of a head whose number is a position before it is bounded by one."""

_LINEAR_FROM: Final = np.float32(20.0)  # where torch's softplus becomes its argument
_ZERO: Final = np.float32(0.0)
_HALF: Final = np.float32(0.5)
_ONE: Final = np.float32(1.0)
_HIDDEN: Final = np.float32(-np.inf)
_SMALLEST_EXPONENT: Final = np.float32(-87.0)
_LARGEST_EXPONENT: Final = np.float32(88.0)
_PER_DOUBLING: Final = np.float32(1.0 / log(2.0))
# The logarithm of two in two parts, the first with so few digits that its multiples are exact (Cody and Waite, 1980).
_LOG_2_HIGH: Final = np.float32(0.693359375)
_LOG_2_LOW: Final = np.float32(log(2.0) - 0.693359375)
_TAYLOR: Final = tuple(np.float32(1.0 / factorial) for factorial in (2, 6, 24, 120, 720, 5040))
_EXPONENT_OF_ONE: Final = np.float32(127.0)
_EXPONENT_UNIT: Final = np.float32(2.0**23)
_ROOT_HALF: Final = np.float32(sqrt(0.5))
# Abramowitz and Stegun, "Handbook of mathematical functions", 1964, formula 7.1.26.
_ERF_P: Final = np.float32(0.3275911)
_ERF_A: Final = tuple(
    np.float32(value) for value in (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
)
_NORM_EPSILON: Final = np.float32(1e-5)
_SHORTEST: Final = np.float32(1e-12)


class Scratch(NamedTuple):
    """Room for exponents while they are made: the same memory as whole numbers and as powers of two."""

    bits: npt.NDArray[np.int32]
    powers: FloatRows


@compiled
def _exponentials(values: FloatRows, scratch: Scratch) -> None:
    """Each by its exponential, in place; 0 below ``exp(-87)``.

    ``exp(x) = 2**n exp(r)`` with ``|r| <= log(2) / 2``, the second by its Taylor series, whose rest is below 1e-8.
    """
    t2, t3, t4, t5, t6, t7 = _TAYLOR
    for i in range(len(values)):
        x = min(max(values[i], _SMALLEST_EXPONENT), _LARGEST_EXPONENT)
        n = np.floor(x * _PER_DOUBLING + _HALF)
        r = x - n * _LOG_2_HIGH - n * _LOG_2_LOW
        scratch.bits[i] = np.int32((n + _EXPONENT_OF_ONE) * _EXPONENT_UNIT)
        series = ((((((t7 * r + t6) * r + t5) * r + t4) * r + t3) * r + t2) * r + _ONE) * r + _ONE
        values[i] = series if values[i] >= _SMALLEST_EXPONENT else _ZERO
    for i in range(len(values)):
        values[i] *= scratch.powers[i]


@compiled
def _gelu(values: FloatRows, room: FloatRows, scratch: Scratch) -> None:
    """``x * (1 + erf(x / sqrt(2))) / 2``, in place (Hendrycks and Gimpel, 2016)."""
    a1, a2, a3, a4, a5 = _ERF_A
    count = len(values)
    for i in range(count):
        room[i] = -_HALF * values[i] * values[i]
    _exponentials(room[:count], scratch)
    for i in range(count):
        x = values[i]
        t = _ONE / (_ONE + _ERF_P * abs(x) * _ROOT_HALF)
        rest = ((((a5 * t + a4) * t + a3) * t + a2) * t + a1) * t * room[i]
        values[i] = _HALF * x * (_ONE + (_ONE - rest if x >= _ZERO else rest - _ONE))


@compiled
def _softmax(scores: FloatRows, scratch: Scratch) -> None:
    """In place; what is ``-inf`` gets exactly nothing, and one at least is finite."""
    highest = scores[0]
    for i in range(1, len(scores)):
        highest = max(highest, scores[i])
    for i in range(len(scores)):
        scores[i] -= highest
    _exponentials(scores, scratch)
    total = _ZERO
    for i in range(len(scores)):
        total += scores[i]
    share = _ONE / total
    for i in range(len(scores)):
        scores[i] *= share


@compiled
def _map(row: FloatRows, matrix: FloatRows, bias: FloatRows, out: FloatRows) -> None:
    """``out = bias + row @ matrix``, with ``matrix`` ``[inputs, outputs]``."""
    for j in range(len(out)):
        out[j] = bias[j]
    _add_map(row, matrix, out)


@compiled
def _add_map(row: FloatRows, matrix: FloatRows, out: FloatRows) -> None:
    """``out += row @ matrix``: four inputs at a time, so that sums are fetched and put back less often."""
    count = len(row)
    whole = count - count % 4
    for i in range(0, whole, 4):
        a, b, c, d = row[i], row[i + 1], row[i + 2], row[i + 3]
        for j in range(len(out)):
            out[j] = out[j] + a * matrix[i, j] + b * matrix[i + 1, j] + c * matrix[i + 2, j] + d * matrix[i + 3, j]
    for i in range(whole, count):
        for j in range(len(out)):
            out[j] += row[i] * matrix[i, j]


@compiled
def _map_two(
    row: FloatRows, other: FloatRows, matrix: FloatRows, bias: FloatRows, out: FloatRows, other_out: FloatRows
) -> None:
    """``_map`` of two rows, with the same bits: a weight is fetched once for both."""
    for j in range(len(out)):
        out[j] = bias[j]
        other_out[j] = bias[j]
    count = len(row)
    whole = count - count % 4
    for i in range(0, whole, 4):
        a, b, c, d = row[i], row[i + 1], row[i + 2], row[i + 3]
        e, f, g, h = other[i], other[i + 1], other[i + 2], other[i + 3]
        for j in range(len(out)):
            w, x, y, z = matrix[i, j], matrix[i + 1, j], matrix[i + 2, j], matrix[i + 3, j]
            out[j] = out[j] + a * w + b * x + c * y + d * z
            other_out[j] = other_out[j] + e * w + f * x + g * y + h * z
    for i in range(whole, count):
        for j in range(len(out)):
            out[j] += row[i] * matrix[i, j]
            other_out[j] += other[i] * matrix[i, j]


@compiled
def _normed(row: FloatRows, out: FloatRows) -> None:
    """With mean 0 and variance 1 (Ba, Kiros and Hinton, "Layer normalization", 2016)."""
    part = _ONE / np.float32(len(row))
    mean = _ZERO
    for i in range(len(row)):
        mean += row[i]
    mean *= part
    variance = _ZERO
    for i in range(len(row)):
        out[i] = row[i] - mean
        variance += out[i] * out[i]
    factor = _ONE / np.sqrt(variance * part + _NORM_EPSILON)
    for i in range(len(row)):
        out[i] *= factor


class EncoderWeights(NamedTuple):
    """An encoder's weights as maps from rows to rows ``[inputs, outputs]``; scales and shifts of norms are taken into them."""

    embedding: FloatRows
    """``[kernel_size * n_features, d_model]``."""
    embedding_bias: FloatRows
    embedding_scale: FloatRows
    embedding_shift: FloatRows
    projection: FloatRows
    """``[layers, d_model, 3 * d_model]`` queries, already scaled, keys and values."""
    projection_bias: FloatRows
    position_bias: FloatRows
    """``[layers, heads, attention_window]``, the oldest bar first."""
    output: FloatRows
    output_bias: FloatRows
    inner: FloatRows
    inner_bias: FloatRows
    outer: FloatRows
    outer_bias: FloatRows
    scale: FloatRows
    shift: FloatRows
    linear: FloatRows
    """``[linear_window * n_features, d_model]``."""
    key: FloatRows
    key_bias: FloatRows


class Past(NamedTuple):
    """What bars left behind for later ones: room for some bars, and what the first of these may look back to."""

    rows: FloatRows
    """``[input_window - 1 + room, n_features]`` scaled features."""
    keys: FloatRows
    """``[layers, d_model, attention_window - 1 + room]``."""
    values: FloatRows
    """``[layers, attention_window - 1 + room, d_model]``."""


@compiled
def encode_bars(
    weights: EncoderWeights,
    past: Past,
    begin: int,
    known: int,
    features: FloatRows,
    hidden: FloatRows,
    keys: FloatRows,
) -> None:
    """States and keys of consecutive bars.

    Args:
        weights: of the encoder.
        past: of the symbol; the places of the bars are written to.
        begin: place of the first of the bars.
        known: bars before the first of them; of earlier ones nothing is seen.
        features: ``[n, n_features]``, scaled.
        hidden: ``[n, d_model]``, written to.
        keys: likewise.
    """
    layers, heads, window = weights.position_bias.shape
    d_model = hidden.shape[1]
    width = d_model // heads
    state, normed, mixed = np.empty(d_model, np.float32), np.empty(d_model, np.float32), np.empty(d_model, np.float32)
    projected = np.empty(3 * d_model, np.float32)
    inner = np.empty(weights.inner.shape[2], np.float32)
    room = np.empty(max(len(inner), window), np.float32)
    scores = np.empty(window, np.float32)
    bits = np.empty(len(room), np.int32)
    scratch = Scratch(bits, bits.view(np.float32))
    n_features = features.shape[1]
    flat = past.rows.reshape(-1)
    newest = len(past.rows) - (past.values.shape[1] - window + 1)  # input_window - 1
    for bar in range(len(features)):
        place = begin + bar
        past.rows[place + newest] = features[bar]
        end = (place + newest + 1) * n_features
        _map(flat[end - len(weights.embedding) : end], weights.embedding, weights.embedding_bias, normed)
        _normed(normed, state)
        for i in range(d_model):
            state[i] = state[i] * weights.embedding_scale[i] + weights.embedding_shift[i]
        blank = window - 1 - (known + bar)
        for layer in range(layers):
            _normed(state, normed)
            _map(normed, weights.projection[layer], weights.projection_bias[layer], projected)
            here = place + window - 1
            for i in range(d_model):
                past.keys[layer, i, here] = projected[d_model + i]
                past.values[layer, here, i] = projected[2 * d_model + i]
                mixed[i] = _ZERO
            for head in range(heads):
                first = head * width
                for j in range(window):
                    scores[j] = weights.position_bias[layer, head, j]
                for i in range(first, first + width):
                    query = projected[i]
                    seen = past.keys[layer, i, place : place + window]
                    for j in range(window):
                        scores[j] += query * seen[j]
                for j in range(blank):
                    scores[j] = _HIDDEN
                _softmax(scores, scratch)
                for j in range(window):
                    told = past.values[layer, place + j]
                    for i in range(first, first + width):
                        mixed[i] += scores[j] * told[i]
            for i in range(d_model):
                state[i] += weights.output_bias[layer, i]
            _add_map(mixed, weights.output[layer], state)
            _normed(state, normed)
            _map(normed, weights.inner[layer], weights.inner_bias[layer], inner)
            _gelu(inner, room, scratch)
            for i in range(d_model):
                state[i] += weights.outer_bias[layer, i]
            _add_map(inner, weights.outer[layer], state)
        _normed(state, normed)
        for i in range(d_model):
            state[i] = normed[i] * weights.scale[i] + weights.shift[i]
        _add_map(flat[end - len(weights.linear) : end], weights.linear, state)
        hidden[bar] = state
        _map(state, weights.key, weights.key_bias, normed)
        length = _ZERO
        for i in range(d_model):
            length += normed[i] * normed[i]
        length = max(np.sqrt(length), _SHORTEST)
        for i in range(d_model):
            keys[bar, i] = normed[i] / length


class ReadWeights(NamedTuple):
    """The weights of all that follows the encoder, as maps ``[inputs, outputs]``; what a model lacks is a map to nothing."""

    scale: np.float32
    """What cosines are multiplied by."""
    null_score: np.float32
    correction: FloatRows
    """``[d_model, d_model]`` of a neighbour's key, already taken away from the one that asks: its sign is turned."""
    asking: FloatRows
    """``[d_model, d_model]`` of the key that asks."""
    asking_bias: FloatRows
    mixing: FloatRows
    """``[fact_count + 2 * d_model + 1, d_model]``: see ``MemoryRead``."""
    gate: FloatRows
    """``[d_model + 5]``."""
    gate_bias: np.float32
    belief_inner: FloatRows
    belief_inner_bias: FloatRows
    belief: FloatRows
    """``[d_model, 2 + 3 * horizons]``."""
    belief_bias: FloatRows
    usual: FloatRows
    """``[horizons, horizons]``."""
    sizes: FloatRows
    """``[horizons, horizons]``."""
    inner: FloatRows
    inner_bias: FloatRows
    outer: FloatRows
    outer_bias: FloatRows
    heads: FloatRows
    """``[d_model, outputs + horizons * (quantiles + 1)]``: the head, then the distribution."""
    heads_bias: FloatRows
    linear_head: FloatRows
    """``[d_model, outputs]`` of the state."""
    key_head: FloatRows
    """``[d_model, outputs]`` of the key."""


class Head(NamedTuple):
    """What a head says, as whole numbers."""

    kind: int
    """One of :data:`RETURNS`, :data:`DIRECTION`, :data:`POSITION`."""
    row: int
    """Which of its outputs is the one that counts; that for up of a direction."""
    primary: int
    """Place of the primary horizon."""
    median: int
    """Place of the median among the quantiles."""


class Told(NamedTuple):
    """What is said of ``n`` bars; written to."""

    predictions: FloatRows
    """``[n]`` signed, see ``losses.signed_view``."""
    gates: FloatRows
    """``[n]``."""
    weights: FloatRows
    """``[n, k]`` share of every neighbour in the model's own vote; what is missing to 1 went to the null entry."""
    quantiles: FloatRows
    """``[n, horizons, quantiles]``."""
    log_volatilities: FloatRows
    """``[n, horizons]``."""


@compiled
def read_bars(
    weights: ReadWeights,
    hidden: FloatRows,
    queries: FloatRows,
    keys: FloatRows,
    likeness: npt.NDArray[np.float64],
    facts: FloatRows,
    mask: npt.NDArray[np.bool_],
    head: Head,
    told: Told,
) -> None:
    """What the model says of bars that found these neighbours: :class:`MemoryTransformer` row by row.

    Args:
        weights: of the model.
        hidden: ``[n, d_model]`` states.
        queries: ``[n, d_model]`` keys.
        keys: ``[n, k, d_model]`` of the neighbours.
        likeness: ``[n, k]`` inner products of both, as the memory found them.
        facts: ``[n, k, fact_count]``, see ``memory_read.describe``.
        mask: ``[n, k]``: true where there is a neighbour.
        head: what the numbers that come out are.
        told: written to.
    """
    n, k, d_model = keys.shape
    horizons = told.log_volatilities.shape[1]
    n_facts = facts.shape[2]
    similarity, alike = np.empty(k, np.float32), np.empty(k, np.float32)
    scores, shares = np.empty(k + 1, np.float32), np.empty(k, np.float32)
    asking, normed, state = np.empty(d_model, np.float32), np.empty(d_model, np.float32), np.empty(d_model, np.float32)
    belief_inner = np.empty(d_model, np.float32)
    differences = np.empty(k * d_model, np.float32)
    parts = np.empty(len(weights.mixing), np.float32)
    rare = np.empty(n_facts, np.float32)
    numbers, spoken = np.empty(2 + 3 * horizons, np.float32), np.empty(len(weights.heads_bias), np.float32)
    sizes, returns = np.empty(horizons, np.float32), np.empty(horizons, np.float32)
    inner = np.empty(weights.inner.shape[1], np.float32)
    room = np.empty(max(len(inner), len(differences), k + 1), np.float32)
    bits = np.empty(len(room), np.int32)
    scratch = Scratch(bits, bits.view(np.float32))
    for bar in range(n):
        query = queries[bar]
        # The vote.
        for j in range(k):
            similarity[j] = np.float32(likeness[bar, j]) if mask[bar, j] else _ZERO
        scores[0] = weights.null_score
        for j in range(k):
            scores[1 + j] = similarity[j] * weights.scale if mask[bar, j] else _HIDDEN
        _softmax(scores, scratch)
        for j in range(k):
            shares[j] = scores[1 + j]
            told.weights[bar, j] = shares[j]
        # What the neighbours are, and how they differ from the bar that asks.
        _map(query, weights.asking, weights.asking_bias, asking)
        for j in range(0, k - 1, 2):
            _map_two(
                keys[bar, j],
                keys[bar, j + 1],
                weights.correction,
                asking,
                differences[j * d_model : (j + 1) * d_model],
                differences[(j + 1) * d_model : (j + 2) * d_model],
            )
        if k % 2:
            _map(keys[bar, k - 1], weights.correction, asking, differences[(k - 1) * d_model :])
        _gelu(differences, room, scratch)
        for i in range(len(parts)):
            parts[i] = _ZERO
        for j in range(k):
            for i in range(n_facts):
                parts[i] += shares[j] * facts[bar, j, i]
            for i in range(d_model):
                parts[n_facts + i] += shares[j] * keys[bar, j, i]
                parts[n_facts + d_model + i] += shares[j] * differences[j * d_model + i]
        parts[n_facts + 2 * d_model] = scores[0]
        gate = _gate(weights, hidden[bar], similarity, scores, facts[bar], mask[bar])
        told.gates[bar] = gate
        for i in range(d_model):
            normed[i] = _ZERO
        _add_map(parts, weights.mixing, normed)
        for i in range(d_model):
            state[i] = hidden[bar, i] + gate * normed[i]
        # What the outcomes alone let expect.
        _map(hidden[bar], weights.belief_inner, weights.belief_inner_bias, belief_inner)
        _gelu(belief_inner, room, scratch)
        _map(belief_inner, weights.belief, weights.belief_bias, numbers)
        sharpness = min(np.exp(numbers[0]), LARGEST_SHARPNESS)
        for j in range(k):
            alike[j] = -sharpness * (similarity[j] - numbers[1])
        _exponentials(alike, scratch)
        for i in range(n_facts):
            rare[i] = _ZERO
        for j in range(k):
            share = _ONE / (_ONE + alike[j]) if mask[bar, j] else _ZERO
            for i in range(n_facts):
                rare[i] += share * facts[bar, j, i]
        _returns(numbers, rare, returns)
        _add_map(parts[:horizons], weights.usual, returns)
        for i in range(horizons):
            returns[i] *= gate
        _log_sizes(parts, sizes)
        # The heads.
        _normed(state, normed)
        _map(normed, weights.inner, weights.inner_bias, inner)
        _gelu(inner, room, scratch)
        _map(inner, weights.outer, weights.outer_bias, normed)
        for i in range(d_model):
            asking[i] = state[i] + normed[i]
        _normed(asking, normed)
        _map(normed, weights.heads, weights.heads_bias, spoken)
        outputs = weights.linear_head.shape[1]
        _add_map(state, weights.linear_head, spoken[:outputs])
        _add_map(query, weights.key_head, spoken[:outputs])
        told.predictions[bar] = _signed(spoken[:outputs], returns[head.primary], head)
        for i in range(horizons):
            told.log_volatilities[bar, i] = _ZERO
        _add_map(sizes, weights.sizes, told.log_volatilities[bar])
        levels = told.quantiles.shape[2]
        for i in range(horizons):
            row = spoken[outputs + i * (levels + 1) : outputs + (i + 1) * (levels + 1)]
            _distribution(row, head.median, returns[i], told.quantiles[bar, i])
            told.log_volatilities[bar, i] = row[levels] + gate * told.log_volatilities[bar, i]


@compiled
def _signed(outputs: FloatRows, move: np.float32, head: Head) -> np.float32:
    """One number from a head's outputs, moved by the memory: ``losses.signed_view``."""
    if head.kind == DIRECTION:
        low, high = outputs[0] - move, outputs[2] + move
        most = max(max(low, high), outputs[1])
        down, flat, up = np.exp(low - most), np.exp(outputs[1] - most), np.exp(high - most)
        return np.float32((up - down) / (down + flat + up))
    said = outputs[head.row] + move
    return np.float32(np.tanh(said) if head.kind == POSITION else said)


@compiled
def _gate(
    weights: ReadWeights,
    hidden: FloatRows,
    similarity: FloatRows,
    votes: FloatRows,
    facts: FloatRows,
    mask: npt.NDArray[np.bool_],
) -> np.float32:
    """Share of the memory, from the state and how good the retrieval is: ``MemoryRead._quality``."""
    k = len(similarity)
    count, best, mean, variance, age, entropy = _ZERO, -_ONE, _ZERO, _ZERO, _ZERO, _ZERO
    for j in range(k):
        if mask[j]:
            count += _ONE
            best = max(best, similarity[j])
            mean += similarity[j]
            age += facts[j, facts.shape[1] - 1]
    several = max(count, _ONE)
    mean, age = mean / several, age / several
    for j in range(k):
        if mask[j]:
            variance += (similarity[j] - mean) * (similarity[j] - mean)
    for j in range(k + 1):
        entropy -= (votes[j] + TINY) * np.log(votes[j] + TINY)
    quality = (
        best * min(count, _ONE),
        np.sqrt(variance / several + TINY),
        np.float32(np.log1p(count) / np.log1p(np.float32(k))),
        age,
        entropy,
    )
    total = weights.gate_bias
    for i in range(len(hidden)):
        total += hidden[i] * weights.gate[i]
    for i in range(5):
        total += quality[i] * weights.gate[len(hidden) + i]
    return np.float32(_ONE / (_ONE + np.exp(-total)))


@compiled
def _returns(numbers: FloatRows, told: FloatRows, out: FloatRows) -> None:
    """What is rare lets expect at every horizon: ``OutcomeRead._returns``."""
    horizons = len(out)
    for i in range(horizons):
        patience = _limited(numbers[2 + i])
        trust = _limited(numbers[2 + horizons + i])
        bound = _limited(numbers[2 + 2 * horizons + i])
        heard = told[i] * (patience + _ONE) / (patience + told[2 * horizons + i])
        out[i] = bound * np.tanh(trust * heard / bound)


@compiled
def _limited(number: np.float32) -> np.float32:
    """The exponential of a number that is kept within bounds."""
    return np.float32(np.exp(LARGEST_BELIEF * np.tanh(number / LARGEST_BELIEF)))


@compiled
def _log_sizes(told: FloatRows, out: FloatRows) -> None:
    """What ``OutcomeRead._sizes`` maps."""
    horizons = len(out)
    for i in range(horizons):
        size, known = max(told[horizons + i], _ZERO), max(told[2 * horizons + i], _ZERO)
        typical = (size / ORDINARY_SIZE + PRIOR_SHARE) / (known + PRIOR_SHARE)
        out[i] = known * np.log(max(typical, PRIOR_SHARE))


@compiled
def _distribution(row: FloatRows, median: int, move: np.float32, out: FloatRows) -> None:
    """Quantiles from the median and steps away from it: ``DistributionHead``."""
    lowest = row[0]
    for i in range(1, len(out)):
        row[i] = np.log1p(np.exp(row[i])) if row[i] <= _LINEAR_FROM else row[i]
    for i in range(1, median + 1):
        lowest -= row[i]
    out[0] = lowest + move
    for i in range(1, len(out)):
        lowest += row[i]
        out[i] = lowest + move
