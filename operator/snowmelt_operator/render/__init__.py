"""From a FineTuneJob to what runs it: names, the trainer's configuration, manifests. Pure."""
