"""`card`: a subset's data card."""

from typing import Annotated

import typer

from mmfilter.allow import Allow

from . import options as o
from .terminal import print


def add(app: typer.Typer) -> None:
    @app.command()
    def card(
        out: o.OutArg,
        name: o.OnlyName = None,
        license: Annotated[str, typer.Option(help="As Hugging Face writes it: cc-by-4.0, other, unknown.")] = "unknown",
        pretty: Annotated[str, typer.Option(help="The title (default: the recipe's name).")] = "",
        metadata: o.Metadata = None,
        allow: Allow = Allow(),
    ) -> None:
        """OUT/subsets/NAME.md: where a subset came from, what was removed, what it is made of."""
        from mmfilter.card import write_card
        from mmfilter.card_facts import CardOptions

        from .outdir import absolute

        options = CardOptions(license, pretty, absolute(metadata) if metadata else "", allow)
        print(write_card(absolute(out), name or "", options))
