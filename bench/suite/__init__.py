"""Runs the contenders, each fit in a process of its own, and writes down what they did."""
