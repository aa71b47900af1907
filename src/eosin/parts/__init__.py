"""Networks, poolings, losses, CAM makers, mask rules and segmenters."""
