"""The product's two images, built here with buildah from the Dockerfiles that serve docker and podman as well."""

from hack.images.build import Images, ImagesError, build_images
from hack.images.layout import load

__all__ = ["Images", "ImagesError", "build_images", "load"]
