"""What the pods of an attempt tell: parsed once, diagnosed by pure functions, remembered where something is wrong."""
