"""From class maps to tag scores."""
