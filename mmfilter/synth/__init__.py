"""A pool of captioned scenes with labelled noise: something to try every part of mmfilter on, offline.

A scene is a few shapes of a colour, a texture and a size on a background, in a relation to each
other; its caption says so in words. `generate` writes such scenes as img2dataset would have written
them, together with the labels of what is wrong with each sample. The same options give the same
bytes, whatever the number of workers.
"""

from .options import KINDS, SynthOptions, SynthReport
from .write import generate

__all__ = ["KINDS", "SynthOptions", "SynthReport", "generate"]
