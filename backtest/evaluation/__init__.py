"""One protocol for everything that forecasts: baselines, models and controls on the same rows under the same rules."""
