"""How the operator does with many FineTuneJobs against a real API server."""
