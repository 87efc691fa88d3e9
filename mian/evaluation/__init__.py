"""Scoring of samples and what follows from scores: metrics over all ranks, baselines, the best possible."""
