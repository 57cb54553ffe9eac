"""Libraries: the embeddings of folders of photos, on disk, and the search for those nearest to an embedding."""

from pops.library.index import Report, index_folder
from pops.library.store import About, Library, Match

__all__ = ["About", "Library", "Match", "Report", "index_folder"]
