"""The Snowmelt operator: watches FineTuneJobs, launches their training and reports status back."""
