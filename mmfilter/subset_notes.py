"""Whether a subset's pool is another than when it was selected, for verbs that are given the subset's file."""

from . import storage
from .allow import ALL, sentences
from .derived import run_of
from .errors import MMFilterError
from .subset_record import changes_since, earlier_record, gaps_of
from .table import open_table


def notes_of(subset: str) -> list[str]:
    """Sentences on a file OUT/subsets/NAME.npy; none on a file beside which no record stands."""
    record = earlier_record(f"{subset.removesuffix('.npy')}.json") if subset.endswith(".npy") else {}
    if not isinstance(record.get("content"), dict):
        return []
    out = run_of(subset)
    try:
        found = [*sentences(gaps_of(record)), *changes_since(open_table(out, None, *ALL), record)]
    except MMFilterError as error:
        found = [f"Its pool cannot be compared with the one that it was selected from: {error}"]
    return [f"subset {storage.stem(subset)} of {out}: {sentence}" for sentence in found]
