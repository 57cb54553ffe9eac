"""A library: the embeddings of a folder of photos on disk, and the nearest of them to an embedding."""

from pops.library.index import Report, index_folder
from pops.library.store import About, Library, Match

__all__ = ["About", "Library", "Match", "Report", "index_folder"]
