"""`inspect`: lint a pool before a GPU is paid for."""
import typer


def add(app: typer.Typer) -> None:
    return
