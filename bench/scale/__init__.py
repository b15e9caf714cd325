"""What a fit costs as the data grows: time and memory from a thousand images to sixty thousand."""
