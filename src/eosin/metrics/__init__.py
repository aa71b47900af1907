"""Confusion, scores, boundaries, objects, calibration, tag metrics, statistics and protocols."""
