"""The model: from samples to a trained, registered and served model in PyTorch. Never imports ``pipeline`` or pyspark."""
