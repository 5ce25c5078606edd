"""Tasks whose best possible forecast is known, so that a model and its memory can be measured against it."""
