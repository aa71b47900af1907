"""Reading images and slides; no torch."""
