"""The ranking server: one user and N candidates over HTTP, scored by a model that is reloaded when its alias moves.

Torch is imported only where its engine is asked for.
"""
