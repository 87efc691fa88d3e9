"""What a training keeps on disk so that it can go on: checkpoints, where they lie, and who may write them."""
