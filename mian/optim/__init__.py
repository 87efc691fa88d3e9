"""The optimizer: dense parameters as one vector, rows of embedding tables, the learning rate's schedule."""
