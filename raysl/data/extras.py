"""Packages that only some configs need: what to install is said before any work begins."""

import importlib.util

from raysl.errors import ConfigError


def require(module: str, extra: str, what: str) -> None:
    """Raises ConfigError with what to install, where a package is not installed."""
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"{what} needs the package {module}. Install it: pip install 'raysl[{extra}]'.")
