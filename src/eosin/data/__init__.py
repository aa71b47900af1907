"""The data contract, its importers and views."""
