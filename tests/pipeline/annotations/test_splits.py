"""Splits and folds: no group on both sides, as even as possible, the same for every order of files."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dynaprop.pipeline.annotations import Annotations, Video, read_annotations
from dynaprop.pipeline.annotations.splits import Split, given_or_stratified, group_folds, inner_holdout
from dynaprop.pipeline.catalog.parser import load_catalog
from dynaprop.pipeline.errors import UsageError

REPOSITORY = Path(__file__).resolve().parents[3]


def annotate(labels: Sequence[int | None], groups: Sequence[str | None] | None = None) -> Annotations:
    """Annotations of videos with these labels (None: unlabelled) and groups."""
    videos = tuple(
        Video(
            id=f"{position:05d}.mp4",
            path=Path(f"/nowhere/{position:05d}.mp4"),
            labels=() if label is None else (label,),
            group=groups[position] if groups else None,
        )
        for position, label in enumerate(labels)
    )
    classes = 1 + max((label for label in labels if label is not None), default=-1)
    return Annotations(videos=videos, class_names=tuple(f"class {label}" for label in range(classes)))


def counts(annotations: Annotations, positions: Sequence[int]) -> list[int]:
    """Videos of each class."""
    labels = [annotations.videos[position].labels[0] for position in positions]
    return np.bincount(labels, minlength=len(annotations.class_names)).tolist()


def groups_of(annotations: Annotations, positions: Sequence[int]) -> set[str | None]:
    return {annotations.videos[position].group for position in positions}


def check(annotations: Annotations, split: Split) -> None:
    """What holds for every split that is made here."""
    labelled = [position for position, video in enumerate(annotations.videos) if video.labels]
    assert sorted(split.train + split.test) == labelled
    assert list(split.train) == sorted(split.train) and list(split.test) == sorted(split.test)
    assert split.train and split.test
    if all(annotations.videos[position].group for position in labelled):
        assert not groups_of(annotations, split.train) & groups_of(annotations, split.test)


def refused(function: object, *args: object, **kwargs: object) -> str:
    """Return the message of the UsageError, which must be one line."""
    with pytest.raises(UsageError) as caught:
        function(*args, **kwargs)  # type: ignore[operator]
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def interaction_like() -> Annotations:
    """UT-Interaction's table: 20 sequences of one video of each of 6 classes, except that the punch of sequence 6 is
    missing and sequence 8 has two."""
    table = [(str(group), label) for group in range(1, 21) for label in range(6)]
    table.remove(("6", 4))
    table.append(("8", 4))
    table.sort()
    return annotate([label for _, label in table], [group for group, _ in table])


LABELS = st.lists(st.integers(0, 3), min_size=4, max_size=60).map(lambda labels: [*labels, *range(4), *range(4)])
GROUPED = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abcdefgh")), min_size=8, max_size=60)
SEEDS = st.integers(0, 5)


class TestGivenSplit:
    def parts(self, *parts: str | None, labelled: Sequence[bool] | None = None) -> Annotations:
        annotations = annotate([position % 2 for position in range(len(parts))])
        videos = tuple(
            replace(video, split=part, labels=video.labels if labelled is None or labelled[position] else ())
            for position, (video, part) in enumerate(zip(annotations.videos, parts, strict=True))
        )
        return replace(annotations, videos=videos)

    def test_test_part(self) -> None:
        annotations = self.parts("train", "test", "val", "test", "train", "train")
        split = given_or_stratified(annotations, 0, 0.3)
        assert split == Split(name="test", fold=None, train=(0, 4, 5), test=(1, 3))

    def test_val_part_where_there_is_no_test(self) -> None:
        annotations = self.parts("train", "val", "val", "train")
        assert given_or_stratified(annotations, 0, 0.3) == Split(name="val", fold=None, train=(0, 3), test=(1, 2))

    def test_unlabelled_test_part_is_no_test(self) -> None:
        annotations = self.parts(
            "train", "train", "val", "val", "test", "test", labelled=(True, True, True, False, False, False)
        )
        assert given_or_stratified(annotations, 0, 0.3) == Split(name="val", fold=None, train=(0, 1), test=(2,))

    def test_a_split_does_not_change_with_what_is_on_disk(self) -> None:
        whole = annotate([number % 3 for number in range(30)])
        gone = set(range(0, 30, 4))
        partly = replace(
            whole,
            videos=tuple(video for number, video in enumerate(whole.videos) if number not in gone),
            absent=tuple(video for number, video in enumerate(whole.videos) if number in gone),
        )

        def test_ids(annotations: Annotations, split: Split) -> set[str]:
            return {annotations.videos[position].id for position in split.test} | set(split.missing)

        pairs = [(given_or_stratified(one, 0, 0.3),) for one in (whole, partly)]
        pairs = list(zip(*pairs, strict=True)) + list(zip(group_folds(whole, 3), group_folds(partly, 3), strict=True))
        for of_whole, of_partly in pairs:
            assert test_ids(whole, of_whole) == test_ids(partly, of_partly)
            assert not of_whole.missing and of_partly.missing

    def test_a_test_part_of_absent_videos_alone_is_still_the_test_part(self) -> None:
        videos = tuple(replace(video, split="train") for video in annotate([0, 1, 0, 1]).videos)
        gone = Video(id="z", path=Path("z"), labels=(0,), split="test")
        split = given_or_stratified(Annotations(videos, ("a", "b"), absent=(gone,)), 0, 0.3)
        assert (split.name, split.test, split.missing) == ("test", (), ("z",))

    def test_absent_videos_of_the_test_part_are_told(self) -> None:
        annotations = self.parts("train", "train", "test", "test")
        absent = tuple(Video(id=f"gone-{part}", path=Path(part), labels=(0,), split=part) for part in ("test", "train"))
        assert given_or_stratified(replace(annotations, absent=absent), 0, 0.3).missing == ("gone-test",)

    @pytest.mark.parametrize("parts", [("train",) * 4, ("test",) * 4, (None,) * 4])
    def test_half_a_split_is_none(self, parts: tuple[str | None, ...]) -> None:
        split = given_or_stratified(self.parts(*parts), 0, 0.5)
        assert split.name == "stratified" and len(split.train) == len(split.test) == 2


class TestStratified:
    @given(labels=LABELS, seed=SEEDS, fraction=st.floats(0.05, 0.95))
    def test_every_class_on_both_sides(self, labels: list[int], seed: int, fraction: float) -> None:
        annotations = annotate(labels)
        split = given_or_stratified(annotations, seed, fraction)
        check(annotations, split)
        of_class = Counter(labels)
        for label, count in enumerate(counts(annotations, split.test)):
            assert 1 <= count < of_class[label]
            # Nothing but rounding, and the rule of one on each side, moves it away from the fraction.
            assert abs(count - fraction * of_class[label]) <= 1

    @given(labels=LABELS, seed=SEEDS)
    def test_depends_on_ids_not_on_what_else_there_is(self, labels: list[int], seed: int) -> None:
        annotations = annotate(labels)
        split = given_or_stratified(annotations, seed, 0.3)
        # An unlabelled video shifts positions and nothing else.
        first = Video(id="!.mp4", path=Path("!.mp4"))
        shifted = given_or_stratified(replace(annotations, videos=(first, *annotations.videos)), seed, 0.3)
        assert shifted.test == tuple(position + 1 for position in split.test)

    def test_seed(self) -> None:
        annotations = annotate([0, 1] * 20)
        splits = [given_or_stratified(annotations, seed, 0.3) for seed in (0, 1, 2)]
        assert len({split.test for split in splits}) == 3
        assert splits[0] == given_or_stratified(annotations, 0, 0.3)

    def test_is_the_same_on_every_machine(self) -> None:
        # Recorded once; a change would silently move videos between training and test in everybody's results.
        assert given_or_stratified(annotate([0, 1] * 5), 0, 0.4).test == (0, 4, 5, 9)
        groups = [f"person {position // 2}" for position in range(10)]
        assert given_or_stratified(annotate([0, 1] * 5, groups), 0, 0.4).test == (2, 3, 6, 7)

    def test_order_of_files_on_disk(self, tmp_path: Path) -> None:
        from dynaprop.pipeline.catalog.catalog import folder_dataset

        names = [f"{name}/{number}.mp4" for name in ("a", "b") for number in range(10)]
        tests = []
        for number, order in enumerate((names, names[::-1])):
            for name in order:
                path = tmp_path / str(number) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            annotations = read_annotations(folder_dataset(tmp_path / str(number)))
            split = given_or_stratified(annotations, 0, 0.3)
            tests.append([annotations.videos[position].id for position in split.test])
        assert tests[0] == tests[1]

    @given(pairs=GROUPED, seed=SEEDS, fraction=st.floats(0.1, 0.9))
    def test_groups_stay_together(self, pairs: list[tuple[int, str]], seed: int, fraction: float) -> None:
        of_class = {label: {group for other, group in pairs if other == label} for label, _ in pairs}
        assume(len(of_class) > 1 and all(len(groups) > 1 for groups in of_class.values()))
        annotations = annotate([label for label, _ in pairs], [group for _, group in pairs])
        check(annotations, given_or_stratified(annotations, seed, fraction))

    @pytest.mark.parametrize("seed", range(5))
    def test_even_groups_are_split_exactly(self, seed: int) -> None:
        # Ten people doing four things each: 0.3 of everything is three people.
        annotations = annotate([label for _ in range(10) for label in range(4)], [f"p{i // 4}" for i in range(40)])
        split = given_or_stratified(annotations, seed, 0.3)
        assert counts(annotations, split.test) == [3, 3, 3, 3]
        assert len(groups_of(annotations, split.test)) == 3

    @pytest.mark.parametrize(
        ("labels", "groups", "expected"),
        [
            ([None, None], None, "have no labels"),
            ([0, 0], None, "of the one class 'class 0'"),
            ([0, 0, 1], None, "class 'class 1' has a single video"),
            ([0, 0, 1, 1], ["a"] * 4, "2 parts by group need 2 groups, and there are 1"),
            ([0, 0, 1, 1], ["a", "b", "a", "a"], "all videos of class 'class 1' are of the group 'a'"),
        ],
    )
    def test_refused(self, labels: list[int | None], groups: list[str] | None, expected: str) -> None:
        assert expected in refused(given_or_stratified, annotate(labels, groups), 0, 0.3)


class TestFolds:
    @pytest.mark.parametrize("seed", range(20))
    def test_interaction_folds_are_exactly_even(self, seed: int) -> None:
        # 120 videos: 24 a fold with 4 of each class, which needs sequences 6 and 8 in one fold.
        annotations = interaction_like()
        for split in group_folds(annotations, 5, seed=seed):
            check(annotations, split)
            assert counts(annotations, split.test) == [4] * 6

    @given(pairs=GROUPED, k=st.integers(2, 4), seed=SEEDS)
    def test_by_group(self, pairs: list[tuple[int, str]], k: int, seed: int) -> None:
        of_class = {label: {group for other, group in pairs if other == label} for label, _ in pairs}
        assume(len(of_class) > 1 and all(len(groups) > 1 for groups in of_class.values()))
        assume(all(count > 1 for count in Counter(label for label, _ in pairs).values()))
        assume(len({group for _, group in pairs}) >= k)
        annotations = annotate([label for label, _ in pairs], [group for _, group in pairs])
        folds = group_folds(annotations, k, seed=seed)
        assert [(split.name, split.fold) for split in folds] == [(f"{k}-fold", number) for number in range(k)]
        for split in folds:
            check(annotations, split)
        assert sorted(position for split in folds for position in split.test) == list(range(len(pairs)))

    @given(labels=LABELS, seed=SEEDS)
    def test_without_groups(self, labels: list[int], seed: int) -> None:
        k = min(Counter(labels).values())
        annotations = annotate(labels)
        folds = group_folds(annotations, k, seed=seed)
        for split in folds:
            check(annotations, split)
            for label, count in enumerate(counts(annotations, split.test)):
                assert abs(count - labels.count(label) / k) < 1
        assert sorted(position for split in folds for position in split.test) == list(range(len(labels)))

    def test_as_many_folds_as_groups(self) -> None:
        annotations = annotate([0, 1] * 9, [f"p{position // 2}" for position in range(18)])
        folds = group_folds(annotations, 9)
        assert [len(split.test) for split in folds] == [2] * 9

    def test_given_split_is_pooled(self) -> None:
        annotations = annotate([0, 1] * 6)
        parts = ("train", "train", "test") * 4
        videos = tuple(replace(v, split=part) for v, part in zip(annotations.videos, parts, strict=True))
        folds = group_folds(replace(annotations, videos=videos), 3)  # type: ignore[arg-type]
        assert sorted(position for split in folds for position in split.test) == list(range(12))

    def test_many_groups(self) -> None:
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 5, 3000).tolist()
        annotations = annotate(labels, [f"g{group}" for group in rng.integers(0, 1000, 3000)])
        for split in group_folds(annotations, 5):
            check(annotations, split)
            for label, count in enumerate(counts(annotations, split.test)):
                assert abs(count - labels.count(label) / 5) <= 2

    @pytest.mark.parametrize(
        ("labels", "groups", "k", "expected"),
        [
            ([0, 1] * 4, None, 1, "cross-validation needs at least 2"),
            ([0, 1] * 4, list("aabbccdd"), 5, "5 parts by group need 5 groups, and there are 4"),
            ([0, 1] * 4 + [0], None, 5, "5 folds: class 'class 1' has 4 videos; add"),
            ([0, 1] * 4, list("abababab"), 2, "all videos of class 'class 0' are of the group 'a'"),
            ([None] * 4, None, 2, "have no labels"),
        ],
    )
    def test_refused(self, labels: list[int | None], groups: list[str] | None, k: int, expected: str) -> None:
        assert expected in refused(group_folds, annotate(labels, groups), k)

    def test_real_sequences(self, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DYNAPROP_DATA", str(data_root))
        annotations = read_annotations(load_catalog(REPOSITORY / "catalog.yaml").dataset("ut-interaction"))
        for split in group_folds(annotations, 5):
            check(annotations, split)
            assert len(split.test) == 24
            assert counts(annotations, split.test) == [4] * 6

    def test_real_people(self, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DYNAPROP_DATA", str(data_root))
        annotations = read_annotations(load_catalog(REPOSITORY / "catalog.yaml").dataset("weizmann"))
        folds = group_folds(annotations, 9)
        assert [len(groups_of(annotations, split.test)) for split in folds] == [1] * 9
        split = given_or_stratified(annotations, 0, 0.3)
        check(annotations, split)
        assert counts(annotations, split.test) == [3] * 10


class TestInnerHoldout:
    @given(labels=LABELS, seed=SEEDS)
    def test_a_fifth_by_class(self, labels: list[int], seed: int) -> None:
        kept, held = inner_holdout(labels, seed=seed)
        assert sorted([*kept, *held]) == list(range(len(labels)))
        for label, count in Counter(labels[position] for position in held).items():
            assert 1 <= count < labels.count(label)
            assert abs(count - labels.count(label) / 5) <= 1

    @pytest.mark.parametrize("seed", range(3))
    def test_by_group(self, seed: int) -> None:
        labels = [label for _ in range(10) for label in range(4)]
        groups = [f"p{position // 4}" for position in range(40)]
        kept, held = inner_holdout(labels, groups, seed=seed)
        assert len(held) == 8
        assert not {groups[position] for position in kept} & {groups[position] for position in held}

    @pytest.mark.parametrize(
        "groups",
        [
            [None] * 20,
            ["a"] * 20,
            ["a"] * 19 + [None],
            ["a", "b"] * 10,  # a group a class: holding one out would leave its class untrained
        ],
    )
    def test_by_class_where_groups_do_not_allow_it(self, groups: list[str | None]) -> None:
        labels = [0, 1] * 10
        kept, held = inner_holdout(labels, groups)
        plain_kept, plain_held = inner_holdout(labels)
        assert np.array_equal(kept, plain_kept) and np.array_equal(held, plain_held)
        assert Counter(labels[position] for position in held) == {0: 2, 1: 2}

    def test_class_of_one_video_is_kept(self) -> None:
        kept, held = inner_holdout([0, 0, 0, 1])
        assert 3 in kept and len(held) == 1

    def test_nothing_to_hold_out(self) -> None:
        assert "no class has two training videos" in refused(inner_holdout, [0, 1, 2])
