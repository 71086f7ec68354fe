"""The nearest-neighbour room: what needs FAISS lives here. It never imports ray."""

ROOM_OF = "mmfilter"  # the CLI checks this at start, so that a user's own `index.py` cannot hide us
