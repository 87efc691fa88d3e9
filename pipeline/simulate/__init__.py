"""The simulated world: raw click logs of any size whose best possible prediction is known (docs/simulated-world.md)."""
