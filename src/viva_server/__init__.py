"""A chat server for aiohttp that never loses a reply."""

from viva_server._version import __version__
from viva_server.app import (
    PREFIX,
    SERVICES,
    create_app,
    mount_operator_page,
    mount_page,
    setup,
)
from viva_server.auth import Identity
from viva_server.config import Config
from viva_server.errors import AuthError, ConfigError, ResponderError, VivaError
from viva_server.responders import Conversation, ConversationMessage, EndOfReply

__all__ = (
    "PREFIX",
    "SERVICES",
    "AuthError",
    "Config",
    "ConfigError",
    "Conversation",
    "ConversationMessage",
    "EndOfReply",
    "Identity",
    "ResponderError",
    "VivaError",
    "__version__",
    "create_app",
    "mount_operator_page",
    "mount_page",
    "setup",
)
