"""The ServerApp: trains the cohort of the nodes that are there. See ``server.serving``."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.serving import serve

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train once and end, or with ``serve`` stay."""
    serve(grid, context.run_config)
