"""Examples of an operator: folders of pictures with their metadata, checking and making them, and encoded shards.

Knows pictures, texts and the encoder that is handed in; no prior, no training, no expression.
"""

from pops.data.folder import Example, Fault, Folder
from pops.data.shards import Rows, Shards

__all__ = ["Example", "Fault", "Folder", "Rows", "Shards"]
