"""What the trainers report, on its way into status: tokens, the HTTP endpoint, and the writer that coalesces."""
