"""Slow, independent versions of formulas, in plain loops."""
