"""A night: build, audit, train, evaluate and promote, each step once."""
