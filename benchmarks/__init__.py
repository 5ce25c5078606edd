"""Benchmarks: ``python -m benchmarks [NAME ...]`` prints a table and merges it into ``benchmarks/latest.json``."""
