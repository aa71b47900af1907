"""Confusion, scores, tag metrics and protocols."""
