"""The simulated world: raw click logs of any size whose coefficients are known (docs/concepts/simulated-world.md)."""
