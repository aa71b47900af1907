"""The words every room shares: values, classes, learners, artifacts, fingerprints. Imports nothing of eosin's own."""
