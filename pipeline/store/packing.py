"""Where videos lie in the rows of a store."""

NO_SHARD = -1
PLACE = ["shard", "video_id", "row"]
"""Columns of the manifest and of ledgers that say where a video lies."""


def pack(counts: list[int], *, first_shard: int, shard_rows: int) -> list[tuple[int, int]]:
    """Place videos one after another into shards, none across a border.

    Args:
        counts: clips of each video; a video without clips gets no place (``NO_SHARD``).
        first_shard: number of the first new shard.
        shard_rows: rows of a shard, at least ``max(counts)``.

    Returns:
        ``(shard, row)`` of each video; rows count through all shards.
    """
    places: list[tuple[int, int]] = []
    shard, used = first_shard, 0
    for count in counts:
        if count == 0:
            places.append((NO_SHARD, NO_SHARD))
            continue
        if count > shard_rows:
            raise ValueError(f"a video of {count} clips does not fit a shard of {shard_rows} rows")
        if used + count > shard_rows:
            shard, used = shard + 1, 0
        places.append((shard, shard * shard_rows + used))
        used += count
    return places
