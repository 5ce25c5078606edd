"""The bundle: a trained model as a directory that describes itself, written as a whole or not at all.

``weights.safetensors`` holds weights and buffers, ``bundle.json`` all the rest. There is no pickle: loading a bundle runs
no code. The name of a bundle is a hash of its content, so equal names are equal models.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from strategies.errors import StrategyError
from strategies.features import FEATURE_NAMES, FEATURE_SET
from strategies.memory_transformer.catalogue import DESCRIPTION_FILE
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.dataset import Floats
from strategies.memory_transformer.model import MemoryTransformer
from strategies.memory_transformer.training import TrainedModel
from strategies.scaling import Scaler
from strategies.uncertainty.calibration import Calibration

FORMAT: Final = 4
WEIGHTS_FILE: Final = "weights.safetensors"


class BundleError(StrategyError):
    """A bundle that cannot be used, in one sentence that names it and the fix."""


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A trained model as loaded, ready to forecast."""

    model_id: str
    """Also the version of its encoder: keys of another id must not be searched together with its own."""
    model: MemoryTransformer
    """In evaluation mode, without gradients."""
    scaler: Scaler
    outcome_scale: Floats
    """``[horizons]``."""
    symbols: tuple[str, ...]
    interval: str
    training_span: tuple[int, int]
    """First open time and last close time that training saw, validation included."""
    calibration: Calibration
    """What the online calibration of its forecasts starts from."""
    description: Mapping[str, Any]
    """All of ``bundle.json``."""

    @property
    def config(self) -> ModelConfig:
        """Shape of the model."""
        return self.model.config

    @property
    def knows_direction(self) -> bool:
        """Whether validation told what positions follow from a memory with shuffled outcomes; older bundles do not say so."""
        return self.description["metrics"].get("knows_direction") is True


def save_bundle(root: Path, trained: TrainedModel) -> str:
    """Write a bundle under ``root`` and return its id, which is the name of its directory.

    The directory appears complete or not at all, also when the machine fails meanwhile. Saving the same model again
    changes nothing, unless its bundle was damaged: then it is replaced.

    Raises:
        OSError: the disk refuses.
    """
    weights = safetensors.torch.save({name: value.contiguous() for name, value in trained.model.state_dict().items()})
    content = _describe(trained, hashlib.sha256(weights).hexdigest())
    model_id = _identify(content)
    description = json.dumps({"model_id": model_id, **content}, indent=2, allow_nan=False) + "\n"
    root.mkdir(parents=True, exist_ok=True)
    target = root / model_id
    files = {WEIGHTS_FILE: weights, DESCRIPTION_FILE: description.encode()}
    if not _holds(target, files):
        _write_directory(target, files)
    return model_id


def load_bundle(path: Path, *, interval: str | None = None) -> Bundle:
    """Load a bundle.

    Args:
        path: its directory.
        interval: of the bars that the model is wanted for; ``None`` takes any.

    Raises:
        BundleError: it is missing, damaged, of another format, of another feature set, or of another interval.
    """
    content = _read_description(path)
    weights = _read(path, WEIGHTS_FILE)
    if content.get("weights_sha256") != hashlib.sha256(weights).hexdigest():
        raise BundleError(f"model {path}: {WEIGHTS_FILE} does not match its hash in {DESCRIPTION_FILE}; train it again")
    if content.get("feature_set") != FEATURE_SET:
        raise BundleError(f"model {path} was trained on another feature set than this program computes; train it again")
    if interval is not None and content.get("interval") != interval:
        raise BundleError(
            f"model {path} was trained on interval {content.get('interval')} and cannot be used on {interval}; "
            f"train one on that interval"
        )
    try:
        return _assemble(content, weights)
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError, msgspec.ValidationError) as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"model {path} is not usable ({reason}); train it again") from None


def _assemble(content: Mapping[str, Any], weights: bytes) -> Bundle:
    config = ModelConfig.from_dict(content["model"])
    model = MemoryTransformer(config)
    model.load_state_dict(safetensors.torch.load(weights))
    model.eval().requires_grad_(False)
    start, end = content["training_span"]
    return Bundle(
        model_id=content["model_id"],
        model=model,
        scaler=Scaler.from_dict(content["scaler"]),
        outcome_scale=np.array(content["outcome_scale"], dtype=np.float64),
        symbols=tuple(content["symbols"]),
        interval=content["interval"],
        training_span=(start, end),
        calibration=Calibration.from_dict(content["calibration"]),
        description=content,
    )


def _describe(trained: TrainedModel, weights_sha256: str) -> dict[str, Any]:
    """Everything but the weights, as JSON values."""
    config = trained.model.config
    whitening = trained.model.encoder.whitening
    return {
        "format": FORMAT,
        "model": config.as_dict(),
        "weights_sha256": weights_sha256,
        "feature_set": FEATURE_SET,
        "feature_names": list(FEATURE_NAMES),
        "scaler": trained.scaler.to_dict(),
        "outcome_scale": trained.outcome_scale.tolist(),
        "whitening": {
            "method": "zca",
            "dimension": len(whitening.mean),
            "shrinkage": config.shrinkage,
            "source": trained.report.whitening.source,
            **asdict(trained.report.keys),
        },
        "horizons": list(config.horizons),
        "embargo": config.embargo,
        "interval": trained.interval,
        "symbols": list(trained.symbols),
        "training_span": list(trained.training_span),
        "validation_span": None if trained.validation_span is None else list(trained.validation_span),
        "purge": config.primary_horizon,
        "calibration": trained.calibration.as_dict(),
        "training": asdict(trained.training),
        "seed": trained.training.seed,
        "versions": {"recall": _own_version(), "torch": torch.__version__, "numpy": np.__version__},
        "metrics": trained.report.as_dict(),
    }


def _identify(content: Mapping[str, Any]) -> str:
    """Name of a bundle of this content, whose ``model_id`` is left out."""
    plain = json.dumps({name: value for name, value in content.items() if name != "model_id"}, sort_keys=True)
    return f"mt-{hashlib.sha256(plain.encode()).hexdigest()[:12]}"


def _own_version() -> str:
    try:
        return importlib.metadata.version("recall-bot")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _read_description(path: Path) -> dict[str, Any]:
    """``bundle.json`` of a format that this program knows, checked against its own id."""
    text = _read(path, DESCRIPTION_FILE)
    try:
        content = json.loads(text)
    except ValueError:
        raise BundleError(f"model {path}: {DESCRIPTION_FILE} is not JSON; train it again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise BundleError(f"model {path} has format {found}, this program reads format {FORMAT}; train it again")
    if content.get("model_id") != _identify(content):
        raise BundleError(f"model {path}: {DESCRIPTION_FILE} does not match its id; train it again")
    return content


def _read(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        raise BundleError(f"model {path}: {name} is not there ({reason}); train one with recall train") from None


def _holds(target: Path, files: Mapping[str, bytes]) -> bool:
    """Whether a directory has exactly this content in these files."""
    try:
        return all((target / name).read_bytes() == content for name, content in files.items())
    except OSError:
        return False


def _write_directory(target: Path, files: Mapping[str, bytes]) -> None:
    """Make a directory with these files appear at once."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for name, content in files.items():
            with (temporary / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync_directory(temporary)
        temporary.chmod(0o755)
        if target.exists():
            # What is there cannot be loaded, so nothing is lost in the moment between these two steps.
            shutil.rmtree(target)
        temporary.rename(target)
        _sync_directory(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
