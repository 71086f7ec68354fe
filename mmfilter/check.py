"""What can be known of a recipe before a model is loaded: its columns, its scores' needs, their files, its models."""

from collections.abc import Iterable, Sequence

from .errors import MMFilterError, NotFetched, UsageError, nearest
from .plugs import Plug, PoolScore, Rule, Score
from .recipe import Recipe
from .rules import check_columns, walk
from .sidecar import BASE
from .uids import HALVES
from .weights import HUB, ModelSpec, check_name, find, verify
from .work import PIXELS, known_need, looks, reads_pixels


def columns_of(recipe: Recipe) -> set[str]:
    """The columns of a pool that the recipe was run on: those of every pool, and its scores'."""
    return {*BASE, *(column for score in scores_of(recipe) for column in score.columns)}


def scores_of(recipe: Recipe) -> list[Score | PoolScore]:
    """All scores, those that look at the whole pool last."""
    return [*recipe.scores, *recipe.pool_scores]


def columns_read(recipe: Recipe) -> set[str]:
    """The columns that `select` and `repeat` read, without the uid's halves."""
    return set().union(*(rule.needs for _, rule in rules_of(recipe))) - {*HALVES}


WORDS = frozenset({"uid", "url", "text", "sha256", "key", "face_bboxes", "language", "duplicate_kind"})
"""Columns that no rule can compare with a number."""


def check_select(recipe: Recipe, columns: Iterable[str], has: str = "This pool has") -> None:
    """Raise UsageError, with the place and the nearest name, for a column that `select` or `repeat` reads and is not
    among `columns`. `has` introduces these in the message.
    """
    have = {*columns, *HALVES}
    for where, rule in rules_of(recipe):
        check_columns(rule, have, where, has)
        for path, leaf in walk(rule):
            score = getattr(leaf, "score", None)
            if isinstance(score, str) and score in WORDS:
                raise UsageError(f"{where}.{path}.score: column '{score}' holds words, not numbers; name a score")


def rules_of(recipe: Recipe) -> list[tuple[str, Rule]]:
    """(place in the recipe, rule) of `select` and of each entry of `repeat`."""
    rules = [] if recipe.select is None else [(f"{recipe.where}: select", recipe.select)]
    return rules + [(f"{recipe.where}: repeat[{i}].rule", entry.rule) for i, entry in enumerate(recipe.repeat)]


def check_rule_files(recipe: Recipe) -> None:
    """Raise UsageError for a file that a rule reads and that does not exist."""
    for where, rule in rules_of(recipe):
        for path, leaf in walk(rule):
            _check(leaf, f"{where}.{path}")


def check_score_files(recipe: Recipe, scores: Sequence[Score | PoolScore]) -> None:
    """Raise UsageError for what these scores need and is not there: files, packages."""
    for score in scores:
        _check(score, f"{recipe.where}: score '{score.columns[0]}'")


def _check(plug: Plug, where: str) -> None:
    try:
        plug.check()
    except MMFilterError as error:
        raise UsageError(f"{where}: {error}") from error


def check_needs(recipe: Recipe, columns: Iterable[str], pool_scores: bool = True) -> None:
    """Raise UsageError for a column that a score reads and nothing before it writes.

    `columns` are in the pool already. Scores of the pixels come first and see no column of another score; then the
    other scores in the recipe's order, then the pool scores.
    """
    have = {*BASE, *columns}
    pixels = [score for score in recipe.scores if reads_pixels(score)]
    for score in pixels:
        _check_needs(recipe, score, have if looks(score) else set(BASE))
    have.update(column for score in pixels for column in score.columns)
    others: list[Score | PoolScore] = [score for score in recipe.scores if not reads_pixels(score)]
    for later in others + list(recipe.pool_scores if pool_scores else ()):
        _check_needs(recipe, later, have)
        have.update(later.columns)


def _check_needs(recipe: Recipe, score: Score | PoolScore, have: set[str]) -> None:
    for need in sorted(score.needs):
        if known_need(need, recipe.embed, frozenset(have)) and not (need in PIXELS and isinstance(score, PoolScore)):
            continue
        cure = f"{nearest(need, have)} Add a score that writes it, before this one"
        if any(need in other.columns for other in scores_of(recipe) if other is not score):
            cure = ", and the score that writes it comes later: put that one before"
        raise UsageError(f"{recipe.where}: the score of '{score.columns[0]}' reads the column '{need}'{cure}")


def check_models(recipe: Recipe, names: Iterable[str]) -> dict[str, str]:
    """Find the weights of the recipe's models `names`; returns name -> what to fetch, of those that are not on this
    machine and could not be fetched. Within `hub.nothing_fetched` nothing is tried.

    Raises UsageError for an unknown model or tag, and for a file or folder that is not what the recipe says.
    """
    absent = {}
    for name in names:
        spec = recipe.embed[name]
        try:
            _, path, _ = find(spec)
            if spec.sha256:
                verify(spec, path)
        except NotFetched as error:
            absent[name] = str(error)
        except MMFilterError as error:
            raise UsageError(f"{recipe.where}: embed.{name}: {error}") from error
    return absent


def check_model_names(recipe: Recipe) -> None:
    """Raise UsageError for a model or tag that open_clip does not know; files and folders are not looked for."""
    for name, spec in recipe.embed.items():
        if not _brings_its_own(spec):
            try:
                check_name(spec)
            except UsageError as error:
                raise UsageError(f"{recipe.where}: embed.{name}: {error}") from error


def _brings_its_own(spec: ModelSpec) -> bool:
    return bool(spec.folder) or spec.model.startswith(HUB)
