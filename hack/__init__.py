"""Tools of this repository: generators, a control plane from source, the demo. Not part of the distribution."""
