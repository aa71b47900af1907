"""Encoders with named taps."""
