"""Benchmark of one stage of training against a plain loop that trains everything, in one process, taking turns."""
