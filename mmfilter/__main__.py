"""`python -m mmfilter`: the same as the command `mmfilter`; the one place where this room names `jobs`."""

try:
    from jobs.cli import main
except ModuleNotFoundError as error:  # with -m the current folder comes first: a file of that name may be in it
    if not str(error.name).startswith("jobs"):
        raise
    raise SystemExit("mmfilter: a 'jobs' in this folder hides the package's own; rename it, or run elsewhere") from None

if __name__ == "__main__":
    main()
