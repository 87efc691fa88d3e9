"""The simulated world: raw click logs of any size whose laws are known (docs/concepts/simulated-world.md)."""
