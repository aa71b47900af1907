"""Comparing finished runs: arms, statistics, tables, pictures."""
