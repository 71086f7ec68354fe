"""The verbs in groups, as `mmfilter --help` lists them, with an example of each."""

PREPARE, FILTER, OPERATE, EXPLORE = "Prepare", "Filter", "Operate", "Explore"
SEARCH, TRAIN = "Search", "Train and measure"

GROUPS = {
    PREPARE: {
        "recipe": "mmfilter recipe copy clip_score",
        "download": "mmfilter download urls.parquet --out shards",
        "inspect": "mmfilter inspect 'shards/{000..007}.tar'",
        "synth": "mmfilter synth shards --samples 4000",
    },
    FILTER: {
        "demo": "mmfilter demo runs/demo",
        "run": "mmfilter run clip_score --pool shards --out runs/l14",
        "embed": "mmfilter embed clip_score --pool shards --out runs/l14",
        "score": "mmfilter score basic_filter --metadata datacomp/metadata --out runs/dc",
        "select": "mmfilter select clip_score --out runs/l14",
        "reshard": "mmfilter reshard runs/l14/subsets/mine.npy --pool shards --out new-shards",
        "dedup": "mmfilter dedup runs/l14 --model l14 --eps 0.05",
        "subset": "mmfilter subset a.npy '&' b.npy --write both.npy",
        "schedule": "mmfilter schedule runs/l14 --kind rs2 --epochs 10 --keep 0.3",
    },
    OPERATE: {
        "submit": "mmfilter submit clip_score --address http://HEAD:8265 --pool s3://bucket/shards --out s3://bucket/l14",
        "status": "mmfilter status runs/l14",
        "verify": "mmfilter verify runs/l14 --deep",
    },
    EXPLORE: {
        "report": "mmfilter report runs/l14 --name clip_score",
        "explain": "mmfilter explain 0123456789abcdef0123456789abcdef --out runs/l14",
        "compare": "mmfilter compare clip_score image_based --out runs/l14",
        "card": "mmfilter card runs/l14 --license cc-by-4.0",
        "cluster": "mmfilter cluster runs/l14 --model l14",
        "probe": "mmfilter probe runs/l14 --model l14 --column label --labels labels.parquet",
    },
    SEARCH: {
        "index": "mmfilter index runs/l14 --model l14",
        "query": "mmfilter query 'a red bicycle' --out runs/l14",
        "serve": "mmfilter serve runs/l14",
    },
    TRAIN: {
        "train": "mmfilter train models/mine --pool clean-shards",
        "evaluate": "mmfilter evaluate models/mine --tasks sets --out results/mine",
        "rank": "mmfilter rank a.npy b.npy --pool shards --out runs/rank",
        "leaderboard": "mmfilter leaderboard runs/rank",
        "advise": "mmfilter advise results.csv --budget 1e8 --bucket-size 1000000",
    },
}


def group_of(verb: str) -> str:
    """The group's name."""
    return next(group for group, verbs in GROUPS.items() if verb in verbs)


def example_of(verb: str) -> str:
    """A command that a person can start from."""
    return GROUPS[group_of(verb)][verb]
