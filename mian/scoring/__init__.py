"""Requests of raw values as columns that a model reads, and models that score them without torch.

Nothing here imports torch or pandas: the ranking server and its image need neither. See :mod:`mian.serving` for models on torch.
"""
