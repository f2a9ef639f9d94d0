"""What travels between a registry's server and its clients: requests with their retries, and values as JSON."""
