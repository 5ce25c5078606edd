"""The bundle: what is saved is what is loaded, and nothing else is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from strategies.features import FEATURE_NAMES, FEATURE_SET
from strategies.memory_transformer.bundle import (
    DESCRIPTION_FILE,
    WEIGHTS_FILE,
    BundleError,
    load_bundle,
    save_bundle,
)
from strategies.memory_transformer.shrinkage import SHRINKAGES


@pytest.fixture
def saved(trained, tmp_path: Path) -> Path:
    return tmp_path / save_bundle(tmp_path, trained)


def rewrite(path: Path, **changes: object) -> None:
    """Change the description without its id."""
    content = json.loads((path / DESCRIPTION_FILE).read_text())
    (path / DESCRIPTION_FILE).write_text(json.dumps(content | changes))


def reidentify(path: Path, **changes: object) -> None:
    """Change the description, and its id with it, as another version of the program would have written it."""
    from strategies.memory_transformer.bundle import _identify

    content = json.loads((path / DESCRIPTION_FILE).read_text()) | changes
    (path / DESCRIPTION_FILE).write_text(json.dumps(content | {"model_id": _identify(content)}))


def test_a_bundle_gives_back_the_model_to_the_last_bit(trained, saved):
    bundle = load_bundle(saved, interval="60")
    weights = bundle.model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in trained.model.state_dict().items())
    assert "encoder.whitening.matrix" in weights
    assert bundle.config == trained.model.config
    assert bundle.scaler.to_dict() == trained.scaler.to_dict()
    assert np.array_equal(bundle.outcome_scale, trained.outcome_scale)
    assert (bundle.symbols, bundle.interval) == (("AAAUSDT",), "60")
    assert bundle.training_span == trained.training_span
    assert not bundle.model.training


def test_a_bundle_describes_itself(trained, saved):
    content = json.loads((saved / DESCRIPTION_FILE).read_text())
    assert content["model_id"] == saved.name
    assert content["feature_names"] == list(FEATURE_NAMES)
    assert content["feature_set"] == FEATURE_SET
    assert content["training_span"] == list(trained.training_span)
    assert content["seed"] == trained.training.seed
    assert set(content["versions"]) == {"recall", "torch", "numpy"}
    assert content["metrics"]["validation"]["bars"] == trained.report.validation.bars


def test_there_is_no_pickle_in_a_bundle_and_nothing_beside_it(saved):
    assert sorted(path.name for path in saved.iterdir()) == [DESCRIPTION_FILE, WEIGHTS_FILE]
    assert list(saved.parent.iterdir()) == [saved]


def test_the_id_is_the_content(trained, saved):
    assert save_bundle(saved.parent, trained) == saved.name
    assert saved.name.startswith("mt-")
    assert len(saved.name) == len("mt-") + 12


def test_saving_again_mends_a_damaged_bundle(trained, saved):
    (saved / WEIGHTS_FILE).write_bytes(b"torn")
    save_bundle(saved.parent, trained)
    load_bundle(saved)
    assert list(saved.parent.iterdir()) == [saved]


def test_a_missing_bundle_is_named(tmp_path):
    with pytest.raises(BundleError, match=r"nowhere: bundle\.json is not there"):
        load_bundle(tmp_path / "nowhere")


def test_missing_weights_are_named(saved):
    (saved / WEIGHTS_FILE).unlink()
    with pytest.raises(BundleError, match=r"weights\.safetensors is not there"):
        load_bundle(saved)


def test_one_flipped_bit_in_the_weights_is_refused(saved):
    content = bytearray((saved / WEIGHTS_FILE).read_bytes())
    content[-1] ^= 1
    (saved / WEIGHTS_FILE).write_bytes(bytes(content))
    with pytest.raises(BundleError, match="does not match its hash"):
        load_bundle(saved)


def test_an_edited_description_is_refused(saved):
    rewrite(saved, embargo=0)
    with pytest.raises(BundleError, match="does not match its id"):
        load_bundle(saved)


def test_text_that_is_no_json_is_refused(saved):
    (saved / DESCRIPTION_FILE).write_text("{")
    with pytest.raises(BundleError, match="is not JSON"):
        load_bundle(saved)


@pytest.mark.parametrize("content", ['{"format": 3}', "[]", "{}"])
def test_another_format_is_refused(saved, content):
    (saved / DESCRIPTION_FILE).write_text(content)
    with pytest.raises(BundleError, match="this program reads format 4"):
        load_bundle(saved)


def test_another_feature_set_is_refused(saved):
    reidentify(saved, feature_set="1:other")
    with pytest.raises(BundleError, match="another feature set"):
        load_bundle(saved)


def test_another_interval_is_refused(saved):
    with pytest.raises(BundleError, match="trained on interval 60 and cannot be used on 15"):
        load_bundle(saved, interval="15")


def test_weights_of_another_shape_are_refused(saved):
    content = json.loads((saved / DESCRIPTION_FILE).read_text())
    reidentify(saved, model=content["model"] | {"d_ff": 64})
    with pytest.raises(BundleError, match="is not usable") as caught:
        load_bundle(saved)
    assert "\n" not in str(caught.value)


def test_a_bundle_says_how_its_keys_were_whitened(trained, saved):
    content = json.loads((saved / DESCRIPTION_FILE).read_text())
    choice = trained.report.whitening
    assert content["model"]["shrinkage"] == content["whitening"]["shrinkage"] == choice.shrinkage
    assert content["whitening"]["source"] == choice.source
    assert content["whitening"]["temperature"] == trained.model.memory_read.temperature
    assert content["whitening"]["effective_neighbors"] > 1.0
    assert [each["shrinkage"] for each in content["metrics"]["whitening"]["candidates"]] == list(SHRINKAGES)
    assert load_bundle(saved).config.shrinkage == choice.shrinkage


def test_a_bundle_from_before_the_shrinkage_was_chosen_still_loads(saved):
    content = json.loads((saved / DESCRIPTION_FILE).read_text())
    model = {name: value for name, value in content["model"].items() if name != "shrinkage"}
    section = {name: content["whitening"][name] for name in ("method", "dimension")}
    reidentify(saved, model=model, whitening=section)
    assert load_bundle(saved).config.shrinkage == 0.1


def test_a_bundle_can_be_moved(saved, tmp_path):
    moved = shutil.move(saved, tmp_path / "elsewhere")
    assert load_bundle(Path(moved)).model_id == saved.name
