"""`make demo`: a FineTuneJob from `kubectl apply` to a model, on this machine, with nothing mocked."""
