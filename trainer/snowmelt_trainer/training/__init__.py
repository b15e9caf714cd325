"""The training loop: one stage after another, evaluation, checkpoints. Runs in each worker; knows torch, but not
Ray."""
