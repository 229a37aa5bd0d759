"""What happens when something around the service breaks: see docs/faults.rst."""
