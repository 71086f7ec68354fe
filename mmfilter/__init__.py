"""mmfilter: turn a pool of image-text pairs into the subset that trains the best CLIP.

This room is the core: plain functions over arrays and files that run in one process, in a
notebook or in a Ray actor, unchanged. It never imports ray or faiss.
"""

__version__ = "0.2.0"
