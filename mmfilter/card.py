"""A subset's data card: what it is, where it came from and how to make it again, in Hugging Face's format."""

import hashlib
from dataclasses import dataclass
from typing import Any

import yaml

from . import storage
from .allow import Allow
from .card_facts import CardOptions, Facts, read_facts, title
from .card_text import sections
from .decisions import resolve_name
from .errors import UsageError
from .markdown import plain
from .own_files import check_replaceable, is_card
from .subset_record import earlier_record, record_path, same_selection
from .yaml_file import parse_yaml

TASKS = ["zero-shot-image-classification", "image-to-text", "text-to-image"]  # of Hugging Face's list of tasks
TAGS = ["clip", "image-text-pairs", "data-filtering", "mmfilter"]
COMMON = 0.01  # of the subset: a language that the front matter names


def write_card(out: str, name: str = "", options: CardOptions = CardOptions()) -> str:
    """Write subsets/NAME.md of subset `name` in `out` (empty: the only one); returns its path.

    The same files give the same bytes. Raises UsageError for a name that is not there, DataError.
    """
    facts = read_facts(out, resolve_name(out, name), options)
    path = storage.join(out, "subsets", f"{facts.name}.md")
    check_replaceable(path, is_card, "a data card")
    storage.write_atomic(path, card(facts).encode("utf-8", "replace"))
    return path


@dataclass(frozen=True)
class Earlier:
    """A card as it was before a selection: its text, what its author gave, and the record that it was written of."""

    text: bytes
    options: CardOptions
    record: dict[str, Any]


def read_earlier(out: str, name: str, metadata: str = "", allow: Allow = Allow()) -> Earlier:
    """The card of subset `name`, before `select` replaces the subset. Without a card, or one that is damaged, the
    options are the defaults with `metadata` and `allow`.
    """
    path = storage.join(out, "subsets", f"{name}.md")
    record = earlier_record(record_path(out, name))
    try:
        text = storage.read_bytes(path)
    except OSError:  # none, or something that is no card and is not replaced
        text = b""
    try:
        matter = parse_yaml(text.decode("utf-8").split("---\n", 2)[1], path)
        license, pretty = str(matter["license"]), str(matter["pretty_name"])
    except (ValueError, IndexError, KeyError, TypeError, UsageError):
        return Earlier(text, CardOptions(metadata=metadata, allow=allow), record)
    given = "" if pretty == title(record, name) else pretty
    return Earlier(text, CardOptions(license, given, metadata, allow), record)


def refresh_card(out: str, name: str, earlier: Earlier) -> str:
    """Write the card of subset `name` with the license and title that its earlier card had; returns its path.

    Where the subset is the same as before the earlier card stays, with what was written into it by hand.
    """
    path = storage.join(out, "subsets", f"{name}.md")
    record = earlier_record(record_path(out, name))
    if earlier.text and same_selection(record, earlier.record) and is_of(earlier.text, out, name):
        storage.write_atomic(path, earlier.text)
        return path
    return write_card(out, name, earlier.options)


def is_of(text: bytes, out: str, name: str) -> bool:
    """Whether a card's text speaks of the subset's file as it is: it holds the file's sha256."""
    digest = hashlib.sha256(storage.read_bytes(storage.join(out, "subsets", f"{name}.npy"))).hexdigest()
    return digest.encode() in text


def card(facts: Facts) -> str:
    """The card: YAML front matter, then sections."""
    matter = yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=True, width=10_000)
    return f"---\n{matter}---\n\n" + "\n\n".join([f"# {plain(facts.title)}", *sections(facts)]) + "\n"


def front_matter(facts: Facts) -> dict[str, Any]:
    """Hugging Face's fields of a dataset card; `language` are those of at least 1 % of the subset."""
    found: dict[str, Any] = {"license": facts.options.license}
    n = facts.composition["samples"]["subset"]
    rows = [(row["value"], row["counts"]["subset"]) for row in facts.composition.get("languages", [])]
    spoken = [value for value, count in rows if n and count >= COMMON * n and value.isalpha() and len(value) in (2, 3)]
    if spoken:
        found["language"] = spoken
    found["size_categories"] = [size_category(facts.record["counts"]["kept"])]
    found["task_categories"] = TASKS
    found["tags"] = TAGS
    found["pretty_name"] = facts.title
    return found


def size_category(n: int) -> str:
    """Hugging Face's class of a number of samples: ``n<1K``, ``1K<n<10K``, ... ``n>1T``."""
    bounds = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
    for i, name in enumerate(bounds):
        if n < 10 ** (3 + i):
            return f"{bounds[i - 1]}<n<{name}" if i else f"n<{name}"
    return "n>1T"
