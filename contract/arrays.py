"""Arrays, as they cross every boundary: by name, or as rows of numbers."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Arrays = dict[str, NDArray[np.generic]]
