"""Whether a new version of a registered model may serve: the evidence, the gates, and the move of the alias."""
