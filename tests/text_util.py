"""A miniature WordNet, lists of entries and ids, for the tests of what looks at captions."""

import json
import os
from typing import Any

HEADER = "  1 WordNet 3.0 Copyright, as every file of it says in its first lines.\n"
NOUNS = [["dog", "domestic_dog"], ["frank", "dog"], ["cat"], ["fox"], ["mouse"], ["Paris"]]
VERBS = [["run"], ["fox"]]
KINDS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}


def write_wordnet(folder: Any, version: str = "3.0") -> dict[tuple[str, str], int]:
    """WordNet's files with a few words; returns (part of speech, first word of the synset) -> offset."""
    os.makedirs(folder, exist_ok=True)
    offsets = {}
    for kind, synsets in {"noun": NOUNS, "verb": VERBS, "adj": [["red"]], "adv": [["well"]]}.items():
        data, index = HEADER.replace("3.0", version), {}
        for words in synsets:
            offsets[kind, words[0]] = len(data)
            for word in words:
                index.setdefault(word.lower(), []).append(len(data))
            named = " ".join(f"{word} 0" for word in words)
            frames = " 01 + 02 00" if kind == "verb" else ""
            data += f"{len(data):08d} 00 {KINDS[kind]} {len(words):02x} {named} 000{frames} | it is so  \n"
        lines = [
            f"{word} {KINDS[kind]} {len(found)} 0 {len(found)} 0 {' '.join(f'{offset:08d}' for offset in found)}  \n"
            for word, found in sorted(index.items())
        ]
        exceptions = {"noun": "mice mouse\n", "verb": "ran run\n"}.get(kind, "")
        for name, text in (
            (f"data.{kind}", data),
            (f"index.{kind}", HEADER + "".join(lines)),
            (f"{kind}.exc", exceptions),
        ):
            with open(os.path.join(folder, name), "w") as file:
                file.write(text)
    with open(os.path.join(folder, "lexnames"), "w") as file:
        file.write("00\tnoun.all\t1\n")
    return offsets


def write_lists(folder: Any) -> dict[str, str]:
    """A WordNet, wnids of two of its synsets and MetaCLIP's entries; returns their paths by name."""
    folder = str(folder)
    offsets = write_wordnet(f"{folder}/wordnet")
    with open(f"{folder}/wnids.txt", "w") as file:
        file.write("".join(f"n{offsets['noun', word]:08d}\n" for word in ("fox", "mouse")))
    with open(f"{folder}/entries.json", "w") as file:
        json.dump(["red", "fox", "red fox", "Haus", "a", "no such"], file)
    return {"wordnet": f"{folder}/wordnet", "wnids": f"{folder}/wnids.txt", "entries": f"{folder}/entries.json"}
