"""Writes what follows from the sources: the catalog of architectures, the CRD and its copy, the API reference."""
