"""The record of a training: one MLflow run, kept on the disk until the tracking store has it.

Nothing is imported here: MLflow takes seconds to import, and a training's other ranks do without.
"""
