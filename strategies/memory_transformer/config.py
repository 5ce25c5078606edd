"""Shape of the memory transformer: every number that its weights depend on, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Final

from memory_store.policy import Scope
from strategies.errors import StrategyError
from strategies.features import FEATURE_WARMUP

MAXIMUM_SCALE: Final = 100.0
"""Upper bound of the learned score scale: sharper softmaxes than this only follow rounding."""

SMALLEST_SHRINKAGE: Final = 0.001
"""Of the whitening: with less, directions without any variance would become noise a thousand times enlarged."""

RECOMMENDED: Final[dict[str, tuple[float, float]]] = {
    "memory_size": (50_000, 200_000),
    "n_neighbors": (16, 64),
    "d_model": (64, 128),
    "temperature": (0.02, 0.2),
}
"""Ranges outside of which :func:`model_warnings` speaks up; every value that a check below accepts still works."""


class OutputType(StrEnum):
    """What the head predicts."""

    REGRESSION = "regression"
    """Log return over the primary horizon in units of its own volatility, ``r / (sigma_t * sqrt(h))``."""
    DIRECTION = "direction"
    """Three logits: down, flat, up."""
    PORTFOLIO = "portfolio"
    """A position in (-1, 1), trained on utility net of costs."""
    PATH = "path"
    """Log returns over all horizons, each in units of its own volatility, ``r / (sigma_t * sqrt(h))``."""

    @property
    def forecasts_returns(self) -> bool:
        """Whether the head says how large a return to expect."""
        return self in (OutputType.REGRESSION, OutputType.PATH)


class ModelConfigError(StrategyError):
    """A model configuration that cannot work, in one sentence."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Hyperparameters of one model. Plain JSON through :meth:`as_dict` and :meth:`from_dict`.

    Raises:
        ModelConfigError: a value is out of range or two of them contradict each other.
    """

    n_features: int
    d_model: int = 64
    n_heads: int = 4
    n_layers: int = 2
    d_ff: int = 256
    dropout: float = 0.1
    attention_window: int = 96
    """Bars that a bar attends to in every layer, itself included; at most one block."""
    block: int = 128
    """Bars of one block of training, aligned to absolute bar numbers, and of what a replay looks ahead."""
    kernel_size: int = 3
    """Width of the causal token convolution in bars, at most one block: how much of the shape of the last bars a token
    holds before any attention."""
    linear_window: int = 0
    """Bars, at most one block, that a state and the head also see by a linear map, past all norms and layers: 0 for none.
    (A linear map of the window is hard to beat on periodic series: Zeng, Chen, Zhang and Xu, "Are transformers effective
    for time series forecasting?", 2023.)"""
    n_neighbors: int = 32
    temperature: float = 0.07
    """Softmax temperature over cosine scores at the start of training; the scale 1 / temperature is then learned."""
    gate_bias: float = 2.0
    """Positive prefers the local context, negative the memory: the gate starts at ``sigmoid(-gate_bias)``."""
    memory_size: int = 100_000
    scope: Scope = Scope.ALL
    """Whose moments answer in training, seen from the symbol that asks: ``all`` or ``same``."""
    output_type: OutputType = OutputType.REGRESSION
    flat_threshold: float = 0.25
    """Returns smaller than this, in units of their volatility, are *flat* to the direction head."""
    horizons: tuple[int, ...] = (1, 4, 24)
    """Bars after which an entry's outcomes are taken, increasing."""
    primary: int = 2
    """Position in ``horizons`` of the one that is predicted and that makes an entry visible."""
    embargo: int = 48
    """Bars that an entry stays hidden after its primary outcome is known."""
    shrinkage: float = 0.1
    """Of the whitening of keys: the smaller, the more alike all directions count; 1 only centres. That of a trained model
    is the one that its keys have, whether training chose it or was told. Models without the field were made with 0.1."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "output_type", OutputType(self.output_type))
        object.__setattr__(self, "scope", Scope(self.scope))
        object.__setattr__(self, "horizons", tuple(int(horizon) for horizon in self.horizons))
        for name in ("n_features", "d_model", "n_heads", "n_layers", "d_ff", "n_neighbors", "memory_size"):
            _require(getattr(self, name) >= 1, f"model.{name} = {getattr(self, name)} must be at least 1")
        _require(
            self.d_model % self.n_heads == 0,
            f"model.d_model = {self.d_model} must be a multiple of model.n_heads = {self.n_heads}",
        )
        _require(0.0 <= self.dropout < 1.0, f"model.dropout = {self.dropout} must be at least 0 and below 1")
        _require(
            1 <= self.kernel_size <= self.block,
            f"model.kernel_size = {self.kernel_size} must be from 1 to model.block = {self.block}",
        )
        _require(
            0 <= self.linear_window <= self.block,
            f"model.linear_window = {self.linear_window} must be from 0 to model.block = {self.block}",
        )
        _require(
            1 <= self.attention_window <= self.block,
            f"model.attention_window = {self.attention_window} must be from 1 to model.block = {self.block}",
        )
        _require(
            self.temperature >= 1.0 / MAXIMUM_SCALE,
            f"model.temperature = {self.temperature} must be at least {1.0 / MAXIMUM_SCALE}",
        )
        _require(self.flat_threshold > 0.0, f"model.flat_threshold = {self.flat_threshold} must be positive")
        _require(
            SMALLEST_SHRINKAGE <= self.shrinkage <= 1.0,
            f"model.shrinkage = {self.shrinkage} must be from {SMALLEST_SHRINKAGE} to 1",
        )
        _require(self.scope is not Scope.OTHER, "model.scope = other is for asking a memory; train with all or same")
        _require(self.embargo >= 0, f"model.embargo = {self.embargo} must not be negative")
        increasing = all(a < b for a, b in zip(self.horizons, self.horizons[1:], strict=False))
        _require(
            bool(self.horizons) and self.horizons[0] >= 1 and increasing,
            f"model.horizons = {list(self.horizons)} must be increasing whole numbers of bars from 1 on",
        )
        _require(
            0 <= self.primary < len(self.horizons),
            f"model.primary = {self.primary} must be a position in model.horizons, 0 to {len(self.horizons) - 1}",
        )

    @property
    def primary_horizon(self) -> int:
        """Bars ahead that the model predicts."""
        return self.horizons[self.primary]

    @property
    def output_width(self) -> int:
        """Numbers that the head puts out."""
        return {OutputType.DIRECTION: 3, OutputType.PATH: len(self.horizons)}.get(self.output_type, 1)

    @property
    def input_window(self) -> int:
        """Rows of features, the bar's own included, that a bar takes in before any attention."""
        return max(self.kernel_size, self.linear_window)

    @property
    def receptive_field(self) -> int:
        """Bars, itself included, that the state of one bar depends on."""
        return max(self.n_layers * (self.attention_window - 1) + self.kernel_size, self.linear_window)

    @property
    def warmup(self) -> int:
        """Bars, itself included, that the key of one bar depends on, the windows of its features counted in.

        A bar with fewer before it has no key: so the key of a bar is the same wherever its history begins.
        """
        return FEATURE_WARMUP + self.receptive_field - 1

    @property
    def context_blocks(self) -> int:
        """Whole blocks before a block that its states may depend on."""
        return -(-(self.receptive_field - 1) // self.block)

    def as_dict(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        return asdict(self) | {
            "output_type": self.output_type.value,
            "scope": self.scope.value,
            "horizons": list(self.horizons),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """The configuration that :meth:`as_dict` gave.

        Raises:
            ModelConfigError: a key is unknown or missing, or a value is out of range.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        _require(not unknown, f"model configuration has unknown keys {unknown}; remove them")
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise ModelConfigError(f"model configuration is not usable: {error}") from None


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ModelConfigError(message)


def model_warnings(config: ModelConfig) -> tuple[str, ...]:
    """One sentence for every value that is allowed but outside its recommended range."""
    warnings = []
    for name, (lowest, highest) in RECOMMENDED.items():
        value = getattr(config, name)
        if not lowest <= value <= highest:
            text = f"model.{name} = {value:g} is outside the recommended range {lowest:g} to {highest:g}"
            if name == "temperature" and value > highest:
                text += "; a softmax of cosines at such a temperature weighs all neighbours almost alike"
            warnings.append(text)
    return tuple(warnings)
