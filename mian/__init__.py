"""All that runs in PyTorch: from samples to a trained, registered model. Never imports pyspark."""
