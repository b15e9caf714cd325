"""The Snowmelt trainer: fine-tunes a torchvision backbone by progressive unfreezing on Ray Train."""
