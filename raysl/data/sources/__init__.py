"""Where documents come from. A new kind of source is one file here and one line in the catalog."""

from raysl.data.sources.base import BadRows, Partition, Source
from raysl.data.sources.files import Files
from raysl.data.sources.image_source import Digits, ImageSource
from raysl.data.sources.images import Images
from raysl.data.sources.python_docs import PythonDocs

__all__ = ["BadRows", "Digits", "Files", "ImageSource", "Images", "Partition", "PythonDocs", "Source"]
