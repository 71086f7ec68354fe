"""`python -m mmfilter`: the same as the command `mmfilter`; the one place where this room names `jobs`."""

from jobs.cli import main

if __name__ == "__main__":
    main()
