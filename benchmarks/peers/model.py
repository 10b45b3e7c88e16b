"""The peers' work on a record: decode it, learn and score it in River's trees, one model per key.

The same work as the tutorial's flow, without a framework.
"""

from __future__ import annotations

import json

from river.anomaly import HalfSpaceTrees

__all__ = ["Models"]


class Models:
    """One model for each instance, in a dict."""

    def __init__(self) -> None:
        self._models: dict[str, HalfSpaceTrees] = {}

    def take(self, record: bytes) -> None:
        """Decode, learn, score; print it if it is an anomaly."""
        reading = json.loads(record)
        self.score(reading["instance"], reading)

    def score(self, instance: str, reading: dict[str, str]) -> None:
        """Learn and score a decoded record."""
        model = self._models.get(instance)
        if model is None:
            model = HalfSpaceTrees(n_trees=5, height=3, window_size=5, seed=42)
            self._models[instance] = model
        features = {"value": float(reading["value"]) / 100}
        model.learn_one(features)
        score = model.score_one(features)
        if score > 0.7:
            print(instance, reading["timestamp"], features["value"], score)
