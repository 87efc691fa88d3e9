"""A model on the days since its training: is it as good as on its own test days, and are the logs what they were?"""
