"""Running an exported model."""
