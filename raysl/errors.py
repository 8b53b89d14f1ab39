"""What raysl raises for a user's mistake. Anything else that rises is a fault of raysl.

RayslError                exit code 2, one message, no traceback
├── ConfigError           a YAML, an override or a run folder made with another config
│   └── CatalogError      a `type:` that names nothing
├── DataError             a missing, empty or unreadable input
│   └── StoreError        an object store that does not answer; a later attempt may succeed
├── StageError            a stage that needs another stage first
├── TrainingError         a run that cannot go on (NaN, collapse, starvation)
├── RankError             what one rank of several met while the others trained; a later attempt may succeed
├── BundleError           a bundle that is cut off, altered or fails its parity check
└── ServeError            a port in use, an app that did not come up
"""


class RayslError(Exception):
    """Base of every error that names the user's value, the allowed ones and the fix."""


class ConfigError(RayslError):
    """The configuration cannot be used; holds one line per mistake."""


class CatalogError(ConfigError):
    """A name that is in no catalog and is no `module:Class` either."""


class DataError(RayslError):
    """An input is missing, empty or unreadable, or nothing is left of it."""


class StoreError(DataError):
    """An object store failed at every attempt, a file is not in it, or its copy on this node cannot be written."""


class StageError(RayslError):
    """A stage was started before the stage whose output it reads."""


class TrainingError(RayslError):
    """Training stopped itself; the message says which key to change."""


class RankError(RayslError):
    """One rank of several met a mistake while the others trained on; all have to start again."""


class BundleError(RayslError):
    """A bundle is incomplete, altered, or differs from the model it was exported from."""


class ServeError(RayslError):
    """The service could not be started or reached."""
