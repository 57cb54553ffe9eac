"""Measurements that the product takes of itself: against the truth, where it is known."""
