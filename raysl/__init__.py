"""raysl: raw data without labels to a served, watched model, end to end on Ray.

Importing this package has no effect and costs nothing: heavy modules load inside the command that uses them.
"""

__version__ = "0.1.0"
