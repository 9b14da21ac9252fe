"""A chat server for aiohttp that never loses a reply."""

from viva_server._version import __version__

__all__ = ("__version__",)
