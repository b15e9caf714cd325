"""Runs on the Ray head: launches Ray Train, reports progress, publishes the model."""
