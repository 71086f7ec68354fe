"""What may stand in a request's body: pydantic models, each list and text with its limit."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Uid = Annotated[str, Field(pattern="^[0-9a-fA-F]{32}$")]
Text = Annotated[str, Field(max_length=10_000)]
Name = Annotated[str, Field(max_length=200)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Vector = Annotated[list[Number], Field(max_length=16_384)]
Aesthetic = Number | Annotated[str, Field(max_length=100)] | None  # the web front sends text, "" for none
Ids = Annotated[list[int], Field(max_length=100_000)]


class Body(BaseModel):
    """Unknown fields are refused: a misspelt filter would silently filter nothing."""

    model_config = ConfigDict(extra="forbid")


class Among(Body):
    """Which samples are asked for; all that is given must hold.

    `subset` alone: what it holds. `kept`: what `subset` (default: the newest) holds, or, when false, does not.
    `where`: an SQL expression over the columns. `clusters`, `without_clusters`: values of the column `cluster_id`.
    """

    subset: Name | None = None
    kept: bool | None = None
    where: Annotated[str, Field(max_length=4_000)] | None = None
    clusters: Ids | None = None
    without_clusters: Ids | None = None


class Search(Body):
    """A query: the mean of what is given, less half the mean of `unlike` and `minus`. None given: a random sample.

    `image` is a file in base64. `floor` asks for all at or above a similarity, at most `k`. `verdict` names the
    subset that `kept` of each hit tells of.
    """

    pool: Name | None = None
    index: Name | None = None
    text: Text | None = None
    image: str | None = None
    uid: Uid | None = None
    vector: Vector | None = None
    like: Annotated[list[Uid], Field(max_length=1_000)] = []
    unlike: Annotated[list[Uid], Field(max_length=1_000)] = []
    minus: Text | None = None
    k: Annotated[int, Field(ge=1)] = 40
    floor: Annotated[float, Field(ge=-1, le=1)] | None = None
    among: Among = Among()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    verdict: Name | None = None


class Preview(Body):
    """`select` is a recipe's select tree, of rules that look at columns."""

    pool: Name | None = None
    select: Any


class Export(Body):
    """Either uids (one given twice stands twice), or what a select tree keeps."""

    pool: Name | None = None
    uids: list[Uid] | None = None
    select: Any = None


class KnnService(BaseModel):
    """clip-retrieval's query. The last five, and any other field, ask for what this service does not have: see
    `clip_api.missing`. They are no error: its clients of every version work.
    """

    model_config = ConfigDict(extra="allow")

    modality: str = "image"
    num_images: Annotated[int, Field(ge=1)] = 40
    num_result_ids: Annotated[int, Field(ge=1)] | None = None
    indice_name: Name | None = None
    text: Text | None = None
    image: str | None = None
    image_url: Annotated[str, Field(max_length=4_000)] | None = None
    embedding_input: Vector | None = None
    deduplicate: bool | None = None
    use_mclip: bool | None = None
    use_safety_model: bool | None = None
    use_violence_detector: bool | None = None
    aesthetic_score: Aesthetic = None
    aesthetic_weight: Aesthetic = None


class MetadataOf(BaseModel):
    """clip-retrieval's question for metadata by id."""

    indice_name: Name | None = None
    ids: Annotated[list[Annotated[int, Field(ge=0, lt=2**62)]], Field(max_length=10_000)]
