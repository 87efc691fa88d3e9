"""The point-in-time join: what belongs to each user's impressions, found in NumPy over partitions by user.

Users share partitions and a partition is worked on whole, so that a user with a tenth of all clicks costs no more than the same
clicks of many users; a window function or a self-join would be quadratic in the heavy user.
"""
