"""The fleet page: HTML made here, renewed by server-sent events, from no address but its own."""
