"""All cores: a parent that opens the ports, and worker processes that serve them."""
