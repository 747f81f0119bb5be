"""What Runout costs and how well it does: each beside a peer or limit measured in the same run."""

import os

# As the agent runs: one thread of linear algebra. Before numpy is imported.
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(name, "1")
