"""`subset`: the algebra of subset files."""

import operator
from typing import Annotated

import typer

from mmfilter.errors import UsageError

from .terminal import print

SIGNS = {"&": operator.and_, "|": operator.or_, "-": operator.sub, "+": operator.add, "*": operator.mul}


def times(word: str) -> int:
    """How often, of a word after '*'. Raises UsageError."""
    if not (word.isascii() and word.isdigit() and 0 < int(word) <= 1000):
        raise UsageError(f"'*' {word}: a number from 1 to 1000 says how often each sample is repeated")
    return int(word)


def _files(words: list[str]) -> list[str]:
    """The subsets among the words: what is no sign and no number after '*'."""
    return words[:1] + [word for sign, word in zip(words[1::2], words[2::2], strict=True) if sign != "*"]


def add(app: typer.Typer) -> None:
    @app.command()
    def subset(
        words: Annotated[
            list[str],
            typer.Argument(
                help="A.npy, or A.npy '&' B.npy '|' C.npy - D.npy + E.npy '*' 3, left to right.", metavar="SUBSETS"
            ),
        ],
        out: Annotated[
            str | None, typer.Option("--out", help="A run: its subsets may be given by name.", metavar="OUT")
        ] = None,
        write: Annotated[str, typer.Option("--write", help="Write the result here.")] = "",
        sort: Annotated[bool, typer.Option("--sort", help="Accept an unsorted file.")] = False,
        unique: Annotated[bool, typer.Option("--unique", help="Each uid once.")] = False,
        show: Annotated[int, typer.Option(min=0, help="Print so many uids.")] = 0,
    ) -> None:
        """Count, combine and sort subsets: of counts & is the smaller, | the larger, - the difference, + the sum."""
        from mmfilter.derived import refuse_derived_alike, run_of
        from mmfilter.own_files import check_subset_target
        from mmfilter.subset import Subset, load
        from mmfilter.subset_file import read_subset_bytes

        from .compare import find_subset

        def read(word: str) -> Subset:
            path = find_subset(word, out)
            return Subset(load(read_subset_bytes(path), path)) if sort else Subset.read(path)

        if len(words) % 2 == 0:
            raise UsageError(
                "give files with '&', '|', '-' or '+' between them, or '*' and a number "
                "(quoted, so that the shell leaves them alone)"
            )
        refuse_derived_alike(run_of(find_subset(word, out)) for word in _files(words))
        result = read(words[0])
        for sign, word in zip(words[1::2], words[2::2], strict=True):
            if sign not in SIGNS:
                raise UsageError(f"'{sign}' stands where one of {' '.join(SIGNS)} should")
            result = SIGNS[sign](result, times(word) if sign == "*" else read(word))
        result = result.unique() if unique else result
        print(f"{len(result):,} uids, {len(result.unique()):,} different")
        for uid in result.strings()[:show]:
            print(uid)
        if write:
            check_subset_target(write, [find_subset(word, out) for word in _files(words)])
            result.write(write)
            print(write)
