"""Libraries: the embeddings of folders of photos, on disk, and the search for those nearest to an embedding."""

from pops.library.index import Report, index_folder
from pops.library.store import Library
from pops.library.values import About, Match, Method
from pops.library.where import Where

__all__ = ["About", "Library", "Match", "Method", "Report", "Where", "index_folder"]
