"""`python -m jobs`: the same as the command `mmfilter`."""

from .cli import main

main()
