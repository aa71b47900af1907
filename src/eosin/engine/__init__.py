"""Turns a plan into steps on disk."""
