"""Places of videos in a store's rows."""

from hypothesis import given
from hypothesis import strategies as st

from dynaprop.pipeline.store.packing import NO_SHARD, pack

SHARD_ROWS = 50


@given(st.lists(st.integers(0, SHARD_ROWS), max_size=40), st.integers(0, 5))
def test_videos_follow_one_another_and_none_straddles_two_shards(counts, first_shard):
    places = pack(counts, first_shard=first_shard, shard_rows=SHARD_ROWS)
    end = first_shard * SHARD_ROWS
    for count, (shard, row) in zip(counts, places, strict=True):
        if count == 0:
            assert (shard, row) == (NO_SHARD, NO_SHARD)
            continue
        assert row >= end
        assert row // SHARD_ROWS == (row + count - 1) // SHARD_ROWS == shard
        end = row + count
