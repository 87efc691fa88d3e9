"""Scores of candidates, day by day. The model is a function that comes in: nothing here knows how it computes."""
