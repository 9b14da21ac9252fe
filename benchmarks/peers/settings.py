"""What a peer is told by the runner, by the same names as the server."""

from __future__ import annotations

import os

DATABASE_URL = os.environ["VIVA_DATABASE_URL"]
JWT_SECRET = os.environ["VIVA_JWT_SECRET"]
MODEL_URL = os.environ["VIVA_MODEL_URL"]
MODEL_NAME = os.environ["VIVA_MODEL_NAME"]
POOL_SIZE = 10
