"""One data set per defect, made when a test needs it."""
