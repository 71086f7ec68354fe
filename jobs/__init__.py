"""What a person can start: the command line, and every verb as a job on Ray."""

ROOM_OF = "mmfilter"  # the CLI checks this at start, so that a user's own `jobs.py` cannot hide us
