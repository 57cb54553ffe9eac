"""Measurements that the product takes of itself: against truth (toybox), and later against the public way of doing it."""
