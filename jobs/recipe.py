"""`recipe`: the recipes by name: list them, print one, copy one to edit."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mmfilter.errors import UsageError

from .groups import example_of, group_of
from .options import complete_recipe
from .terminal import print

WIDTH = 96  # characters of the line about a recipe
NameArg = Annotated[
    str, typer.Argument(help="A recipe's name.", metavar="NAME", autocompletion=complete_recipe, show_default=False)
]


def add(app: typer.Typer) -> None:
    verbs = typer.Typer(no_args_is_help=True)
    app.add_typer(
        verbs,
        name="recipe",
        help="Recipes by name: list them, print one, copy one to edit.",
        rich_help_panel=group_of("recipe"),
        epilog=f"Example: {example_of('recipe')}",
    )

    @verbs.command("list", epilog="Example: mmfilter recipe list")
    def list_() -> None:
        """Every recipe that has a name, in a line each: those of this package and of others that are installed."""
        from mmfilter.recipe import known_recipes

        known = known_recipes()
        wide = max(map(len, known), default=0)
        for name, place in known.items():
            print(f"{name:<{wide}}  {about(name, place)}")
        print("\n`mmfilter recipe show NAME` prints one, `mmfilter recipe copy NAME` writes NAME.yaml to edit")

    @verbs.command(epilog="Example: mmfilter recipe show clip_score")
    def show(name: NameArg) -> None:
        """Print a recipe's YAML."""
        from mmfilter.recipe import recipe_yaml

        print(recipe_yaml(name)[0].rstrip("\n"))

    @verbs.command(epilog="Example: mmfilter recipe copy clip_score --to mine.yaml")
    def copy(
        name: NameArg,
        to: Annotated[str, typer.Option("--to", help="The file (default: NAME.yaml here).", metavar="FILE")] = "",
    ) -> None:
        """Write a recipe's YAML to a file of yours, to edit and to run. An existing file is never replaced."""
        from mmfilter.recipe import recipe_yaml

        text = recipe_yaml(name)[0]
        path = Path(to or f"{name}.yaml")
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text.rstrip("\n") + "\n")
        except FileExistsError:
            raise UsageError(f"{path}: exists already and is not replaced; give another file as --to FILE") from None
        except OSError as error:
            raise UsageError(f"{path}: cannot be written ({error.strerror}); give another file as --to FILE") from error
        print(f"{path}: edit it, then `mmfilter run {path} --pool SHARDS --out OUT`")


def about(name: str, place: str) -> str:
    """What a recipe says of itself, or its paper, cut to a line; of another package also where it is."""
    from mmfilter.recipe import load_recipe, packaged

    try:
        source = load_recipe(name).source
    except UsageError as error:  # another package's, which is broken or of another version
        return f"cannot be read: {error}"
    text = " ".join(str(source.get("about") or source.get("paper") or "").split())
    text = text if len(text) <= WIDTH or not sys.stdout.isatty() else text[: WIDTH - 1].rsplit(" ", 1)[0] + " …"
    return text if name in packaged() else f"{text} [{place}]".strip()
