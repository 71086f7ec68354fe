"""The command `mmfilter`, also as `python -m jobs`. It imports little before signals are handled."""

from .stopping import stoppable


def main() -> None:
    """The console entry point: a signal is answered already while the command line is imported."""
    with stoppable():
        from .cli import main as answer

        answer()


if __name__ == "__main__":
    main()
