"""The pool score `synset`: whether a caption names a thing that ImageNet-21k has, as DataComp asks."""

import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from typing import Any

import numpy as np
from pydantic import field_validator

from mmfilter.errors import DataError, UsageError, need
from mmfilter.plugs import PoolScore, Run
from mmfilter.table import Table

from .pool import Pool
from .texts import absolute, groups, read_text, texts

VERSION = re.compile(r"Word[nN]et (\d+\.\d+) Copyright")
WNID = re.compile(r"[navrs]\d{8}")
GET = (
    "WordNet 3.0 is wanted as nltk reads it: `python -m nltk.downloader wordnet`, or name the folder of its files "
    "(index.noun, data.noun, lexnames, ...) as `wordnet` of the score `synset`"
)


class Synset(PoolScore):
    """`text_based` (bool): whether the first WordNet synset of a word of ``text.split()`` is among ImageNet-21k's.

    DataComp's baseline text_based (arXiv 2304.14108), as its code does it: nltk's ``synsets(word)[0].offset()``, in
    WordNet 3.0, is one of the numbers in the list's ids; the part of speech is not compared. `wordnet` is a folder of
    WordNet's files (default: the corpus that nltk finds), on every node. `wnids` is a file of ids (n02084071) a line
    (default: the 21,843 of Google's release, which DataComp names too, as timm ships them). Needs mmfilter[wordnet].
    """

    wordnet: str | None = None
    wnids: str | None = None

    @field_validator("wordnet", "wnids")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        return absolute(value)

    @property
    def columns(self) -> tuple[str, ...]:
        return ("text_based",)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"text"})

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(path for path in (self.wordnet, self.wnids) if path)

    def check(self) -> None:
        find_wordnet(self.wordnet)
        read_wnids(self.wnids)

    def __call__(self, pool: Pool, run: Run) -> dict[str, Any]:
        self.check()
        parts = run(_Named(pool.table, self.wordnet, read_wnids(self.wnids)), groups(pool.table))
        return {"text_based": np.concatenate([np.empty(0, bool), *parts])}


def read_wnids(path: str | None) -> frozenset[int]:
    """The numbers of the ids in a file, an id first in each line. Raises UsageError, DataError."""
    want = "a file of WordNet ids is wanted, one a line, such as imagenet21k_wordnet_ids.txt"
    if path is None:
        need("timm", "timm")
        text = files("timm.data._info").joinpath("imagenet21k_goog_synsets.txt").read_text()
    else:
        text = read_text(path, want)
    ids = [line.split()[0] for line in text.splitlines() if line.strip()]
    if wrong := next((wnid for wnid in ids if not WNID.fullmatch(wnid)), None):
        raise DataError(f"{path}: {wrong[:80]!r} is no WordNet id (n02084071); {want}")
    return frozenset(int(wnid[1:]) for wnid in ids)


def find_wordnet(folder: str | None) -> Any:
    """Where WordNet 3.0 is: nltk's pointer to the folder, or to the archive that its downloader leaves.

    Raises MissingDependency, UsageError.
    """
    nltk = need("nltk", "mmfilter[wordnet]")
    if folder is not None and not os.path.isfile(os.path.join(folder, "data.adj")):
        raise UsageError(f"{folder}: has no data.adj. {GET}")
    if folder is not None and folder not in nltk.data.path:
        nltk.data.path.append(folder)  # nltk reads below its own folders alone
    try:
        root = nltk.data.FileSystemPathPointer(folder) if folder is not None else _found(nltk)
        with root.join("data.adj").open() as stream:
            version = VERSION.search(stream.read(4096).decode())
    except LookupError:  # whose text is a page
        raise UsageError(f"WordNet is in none of nltk's folders ({', '.join(nltk.data.path)}). {GET}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"WordNet cannot be read ({' '.join(str(error).split())[:200]}). {GET}") from error
    if not version or version[1] != "3.0":
        raise UsageError(f"{root}: is WordNet {version and version[1]}; the ids' numbers are those of 3.0. {GET}")
    return root


def _found(nltk: Any) -> Any:
    try:
        return nltk.data.find("corpora/wordnet")
    except LookupError:
        return nltk.data.find("corpora/wordnet.zip/wordnet/")


def open_wordnet(folder: str | None) -> Any:
    """nltk's reader. Raises MissingDependency, UsageError."""
    root = find_wordnet(folder)
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    class English(WordNetCorpusReader):
        def map_wn(self, version: str = "wordnet") -> None:
            """Nothing: it serves other languages alone, and asks for a second WordNet where nltk looks for it."""

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that other languages are not there
            return English(root, None)
    except (LookupError, OSError, ValueError, AssertionError) as error:
        raise UsageError(f"{root}: cannot be read ({' '.join(str(error).split())[:200]}). {GET}") from error


@dataclass(frozen=True)
class _Named:
    """What a worker does with a group: each different word is looked up once, and remembered."""

    table: Table
    folder: str | None
    ids: frozenset[int]
    known: dict[str, bool] = field(default_factory=dict)

    @cached_property
    def wordnet(self) -> Any:
        return open_wordnet(self.folder)

    def __call__(self, stems: list[str]) -> np.ndarray:
        return np.array([any(map(self._is_one, self._words(text))) for text in texts(self.table, stems)], bool)

    def _words(self, text: str | None) -> Iterable[str]:
        return (text or "").split()

    def _is_one(self, word: str) -> bool:
        word = word.lower()  # as nltk does first
        if word not in self.known:
            if len(self.known) >= 2_000_000:
                self.known.clear()
            synsets = self.wordnet.synsets(word)
            self.known[word] = bool(synsets) and synsets[0].offset() in self.ids
        return self.known[word]
