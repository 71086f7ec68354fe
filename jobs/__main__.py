"""`python -m jobs`: the same as the command `mmfilter`."""

from .stopping import stoppable

with stoppable():  # already while the command line is imported
    from .cli import main

    main()
