"""The `snowmelt` command: run, validate, plan and watch FineTuneJobs."""
