"""Predicting images and slides."""
