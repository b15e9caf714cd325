"""The Kubernetes API of Snowmelt: types, conditions and reasons. No I/O."""
