"""A sentence for each status a sample can fail with."""

REASONS = {
    "lost": "The shard's own table or statistics list it, and its tar does not hold it.",
    "unreadable": "The shard could not be opened or read to its end.",
    "empty": "The shard's file has no bytes.",
    "not_a_tar": "The shard's file is no tar.",
    "truncated": "The tar ends in the middle of it.",
    "corrupt_header": "A tar header was damaged; reading went on at the next one that is valid.",
    "trailing_garbage": "What follows the tar's end marks is no tar.",
    "key_repeated": "Its key had been used by an earlier sample of the shard; the earlier one stands.",
    "uid_repeated": "An earlier sample of the pool has the same uid; the earlier one stands.",
    "uid_missing": "Its json states no uid.",
    "uid_invalid": "Its uid was not 32 hexadecimal digits, which an earlier version refused.",
    "missing_image": "It has no image file.",
    "missing_text": "It has no caption where one was looked for.",
    "missing_json": "Bytes of its tar were lost where its json may have stood.",
    "json_malformed": "Its json cannot be read.",
    "text_not_utf8": "Its caption is not UTF-8.",
    "text_too_long": "Its caption is over the limit.",
    "member_too_large": "One of its files is over the limit.",
    "member_sparse": "One of its files is stored as a sparse file, without its holes.",
    "member_continued": "One of its files begins in another volume of the tar.",
    "image_empty": "Its image has no bytes.",
    "not_an_image": "What is named an image is something else, such as a web page.",
    "format_not_allowed": "Its image is in a format that is never decoded.",
    "too_many_pixels": "Its image states more pixels than the limit.",
    "truncated_image": "Its image ends too early.",
    "corrupt_image": "Its image is damaged.",
    "content_error": "Something in its name, json, caption or image raised an error.",
    "embedding_not_finite": "A model gave a vector that is not finite or has no length.",
}


def sentence(status: str) -> str:
    """What the status means; one that is not known is put in plain words."""
    return REASONS.get(status, f"{status.replace('_', ' ').capitalize()}.")
