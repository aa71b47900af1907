"""Domain adaptation: how methods that were trained on one data set do on another, after a share of its items."""
