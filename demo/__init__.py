"""The whole of Runout on one machine: broker, plant, agents, server, nodes; and what came of it."""
