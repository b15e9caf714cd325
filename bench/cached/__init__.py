"""The accuracy of fits with the activation cache and without it."""
