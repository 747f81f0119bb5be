"""Say something to a running agent: what ``ack``, ``shelve``, ``verdict``... of the command do."""
