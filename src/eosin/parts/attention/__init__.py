"""From feature maps to feature maps of the same shape."""
