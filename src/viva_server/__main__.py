"""`python -m viva_server`: the same as `viva-server`."""

from viva_server.cli import main

main()
