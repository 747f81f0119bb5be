"""What other services have collected, as files that ``runout-agent replay`` reads."""
