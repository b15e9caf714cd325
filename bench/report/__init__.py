"""From results to the page of the documentation. Knows neither torch nor the peers."""
