from collections.abc import Mapping


class Curves:
    """What a trainer reports: for each metric its points by step."""

    def __init__(self) -> None:
        self._points: dict[str, dict[int, float]] = {}

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._points.setdefault(name, {})[step] = value

    def __getitem__(self, name: str) -> dict[int, float]:
        return self._points.get(name, {})
