"""The fleet as its devices report it over MQTT: a table, a history, a page, metrics."""
