"""A data set's folder: who may write to it, how days are published, and what is kept."""
