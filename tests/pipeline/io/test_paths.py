"""Places behind a URL: the same answers as pathlib's, and one line where a store cannot be asked."""

import errno
from pathlib import Path

import pytest

from dynaprop.pipeline.catalog.fields import expand_variables
from dynaprop.pipeline.errors import DynapropError, InfrastructureError, UsageError
from dynaprop.pipeline.io.atomic import file_state, published, remove_folder, writing
from dynaprop.pipeline.io.object_path import ObjectPath
from dynaprop.pipeline.io.parquet import read_parquet
from dynaprop.pipeline.io.paths import StoragePath, storage_path
from dynaprop.pipeline.io.reaching import StoreUnavailable, reaching
from tests.published_json import publish_json
from tests.s3_server import SECRET

FILES = {"a.json": b"1", "b/c.json": b"22", "b/d.txt": b"333", "b/e/f.json": b"", "b-2/c.json": b"4"}


@pytest.fixture(params=["disk", "memory", "s3"])
def place(request, tmp_path) -> StoragePath:
    """An empty folder, or what stands for one."""
    if request.param == "disk":
        return tmp_path
    if request.param == "s3":
        return request.getfixturevalue("s3").home
    place = ObjectPath("memory", (tmp_path.name, "home"))
    place.remove_all()
    return place


@pytest.fixture
def filled(place) -> StoragePath:
    for name, data in FILES.items():
        with published(place / name) as temporary:
            temporary.write_bytes(data)
    return place


def below(place: StoragePath, paths) -> list[str]:
    return sorted(str(path).removeprefix(f"{place}/") for path in paths)


class TestLikeAFolder:
    def test_what_lies_where(self, filled):
        """Each expected value is pathlib's: the parameter `disk` says so."""
        assert below(filled, filled.iterdir()) == ["a.json", "b", "b-2"]
        assert below(filled, (filled / "b").iterdir()) == ["b/c.json", "b/d.txt", "b/e"]
        assert below(filled, filled.glob("*.json")) == ["a.json"]
        assert below(filled, filled.glob("*/c.json")) == ["b-2/c.json", "b/c.json"]
        assert below(filled, filled.glob("b/*")) == ["b/c.json", "b/d.txt", "b/e"]
        assert below(filled, filled.glob("*/*/f.json")) == ["b/e/f.json"]
        assert below(filled, filled.glob("b/e/f.json")) == ["b/e/f.json"]
        assert [*filled.glob("none/*"), *filled.glob("*/none"), *filled.glob("a.json/*")] == []
        for name, kind in (("a.json", "file"), ("b", "folder"), ("b/e/f.json", "file"), ("none", None), ("b/n", None)):
            path = filled / name
            assert (path.exists(), path.is_file(), path.is_dir()) == (bool(kind), kind == "file", kind == "folder")

    def test_names(self, filled):
        path = filled / "b" / "c.json"
        assert (path.name, path.stem, path.suffix) == ("c.json", "c", ".json")
        assert path.parent == filled / "b" == path.parents[0]
        assert path.parents[1] == filled
        assert path.with_name("x") == filled / "b" / "x"
        assert path.with_suffix(".y") == filled / "b" / "c.y"
        assert sorted([filled / "b-2" / "c", filled / "b" / "c"])[0] == filled / "b" / "c"
        assert len({path, filled / "b/c.json"}) == 1

    def test_bytes(self, filled):
        path = filled / "b" / "c.json"
        assert path.read_bytes() == b"22"
        assert path.read_text() == "22"
        with path.open("rb") as file:
            assert (file.read(1), file.read()) == (b"2", b"2")
        assert path.stat().st_size == 2
        path.unlink()
        assert not path.exists()
        path.unlink(missing_ok=True)
        for ask in (path.read_bytes, path.stat):
            with pytest.raises(FileNotFoundError):
                ask()

    def test_another_content_is_another_state(self, filled):
        states = {file_state(filled / "b" / "c.json")}
        for content in (b"33", b"44"):  # of the same size
            with published(filled / "b" / "c.json") as temporary:
                temporary.write_bytes(content)
            states.add(file_state(filled / "b" / "c.json"))
        assert len(states) == 3

    def test_removing_a_folder_takes_its_name_for_a_name(self, filled):
        for name in ("b[12]/x", "b[12]/y/z", "b*/x", "b1/x"):
            with published(filled / name) as temporary:
                temporary.write_bytes(b"1")
        remove_folder(filled / "b[12]")
        remove_folder(filled / "b*")
        remove_folder(filled / "none")
        assert below(filled, filled.iterdir()) == ["a.json", "b", "b-2", "b1"]
        assert below(filled, (filled / "b").iterdir()) == ["b/c.json", "b/d.txt", "b/e"]


class TestPublished:
    def test_an_error_leaves_what_was_there(self, filled, tmp_path, monkeypatch):
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(scratch))
        with pytest.raises(RuntimeError), published(filled / "a.json") as temporary:
            temporary.write_bytes(b"half of")
            raise RuntimeError
        assert (filled / "a.json").read_bytes() == b"1"
        publish_json(filled / "a.json", {"whole": True})
        assert (filled / "a.json").read_text() == '{\n  "whole": true\n}\n'
        assert below(filled, filled.iterdir()) == ["a.json", "b", "b-2", *(["scratch"] if filled == tmp_path else [])]
        assert list(scratch.iterdir()) == []

    def test_what_is_wrong_here_is_not_the_stores_fault(self, place):
        def fill_up():
            with writing(place), published(place / "a.json"):
                raise OSError(errno.ENOSPC, "No space left on device")

        def mistake():
            with writing(place), published(place / "a.json"):
                raise TypeError("a mistake")

        with pytest.raises(DynapropError, match="No space left on device; make room") as caught:
            fill_up()
        assert not isinstance(caught.value, InfrastructureError)
        with pytest.raises(TypeError, match="a mistake"):
            mistake()

    def test_a_refused_put_leaves_what_was_there(self, s3):
        publish_json(s3.home / "a.json", 1)
        s3.disturb = lambda method, _: "refuse" if method == "PUT" else None
        with pytest.raises(StoreUnavailable, match=r"s3://features/home/a.json: the store refuses: .* credentials"):
            publish_json(s3.home / "a.json", 2)
        assert s3.objects() == {"a.json": b"1\n"}


class TestRequests:
    def test_a_listing_tells_all_about_its_objects(self, s3):
        for number in range(5):
            s3.put(f"folder/{number}", b"x")
        s3.requests.clear()
        assert [path.stat().st_size for path in (s3.home / "folder").iterdir()] == [1] * 5
        assert len(s3.requests) == 1

    def test_an_object_is_read_and_written_in_one_request(self, s3):
        publish_json(s3.home / "a", 1)
        (s3.home / "a").open().read()
        (s3.home / "a").read_bytes()
        assert [method for method, _ in s3.requests] == ["PUT", "GET", "GET"]

    def test_nothing_is_remembered(self, s3):
        path = s3.home / "a"
        assert not path.exists()
        assert list(s3.home.iterdir()) == []
        s3.put("a", b"1")
        assert path.exists()
        assert below(s3.home, s3.home.iterdir()) == ["a"]
        s3.put("b", b"22")
        s3.put("a", b"333")
        assert below(s3.home, s3.home.iterdir()) == ["a", "b"]
        assert (path.stat().st_size, path.read_bytes()) == (3, b"333")


class TestUrls:
    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ("s3://bucket/a/b", "s3://bucket/a/b"),
            ("S3://bucket//a/", "s3://bucket/a"),
            ("memory://x", "memory://x"),
            ("file:///tmp/a%20b", Path("/tmp/a b")),
            ("some/folder", Path("some/folder")),
            ("/with:colon", Path("/with:colon")),
        ],
    )
    def test_are_read(self, text, place):
        found = storage_path(text)
        assert found == place if isinstance(place, Path) else str(found) == place

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("s3://", "name a bucket, as in s3://bucket/folder"),
            ("s3://bucket/../other", "no . and .. in it"),
            ("s3://bucket/a?versionId=1", "without ? and #"),
            ("ss3://bucket/a", "not on ss3://"),
            ("sftp://host/a", "on a disk and in object stores, not on sftp://"),
            ("simplecache::s3://bucket/a", "not on simplecache::s3://"),
            ("s3://[bucket/a", "write it as s3://bucket/folder"),
        ],
    )
    def test_or_refused(self, text, reason):
        with pytest.raises(UsageError) as error:
            storage_path(text)
        assert reason in str(error.value)

    def test_a_password_is_refused_and_not_repeated(self):
        with pytest.raises(UsageError, match="holds a password") as error:
            storage_path(f"s3://KEY:{SECRET}@bucket/a")
        assert SECRET not in str(error.value)

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            (f"https://account.example/c/a?sig={SECRET}", "https://account.example/c/a: stores can lie on"),
            (f"az://c/a?sp=r&sig={SECRET}", "az://c/a: the URL"),
            (f"az://c/a#{SECRET}", "az://c/a: the URL"),
            (f"s3://{SECRET}@bucket/../a", "s3://bucket/../a: the URL"),
            (f"s3://{SECRET}@bucket/a?versionId=1", "s3://bucket/a: the URL"),
            (f"sftp://{SECRET}@host/me@home", "sftp://host/me@home: stores"),
            (f"simplecache::s3://KEY:{SECRET}@bucket/a", "the simplecache::s3:// URL of a store holds a password"),
            (f"s3://KEY:half/{SECRET}@bucket/a", "the s3:// URL of a store holds a password"),
            (f"s3:///KEY:{SECRET}@bucket/a", "the s3:// URL of a store holds a password"),
            (f"https://KEY:half?{SECRET}@host/a", "the https:// URL of a store holds a password"),
        ],
    )
    def test_a_secret_is_not_repeated_whatever_else_is_wrong(self, text, shown):
        with pytest.raises(UsageError) as error:
            storage_path(text)
        assert str(error.value).startswith(shown)
        assert SECRET not in str(error.value)

    @pytest.mark.parametrize("name", ["..", "a/../b", ".", "", "/etc"])
    def test_no_path_leaves_its_root(self, name):
        with pytest.raises(ValueError, match="no path of an object"):
            ObjectPath("s3", ("bucket",)) / name

    def test_files_lie_below_the_current_folder_when_stores_do_not(self, monkeypatch):
        for home, expected in (("s3://b/c", "./data"), ("file:///x", "/x/data"), ("rel", "rel/data"), ("", "y/data")):
            monkeypatch.setenv("DYNAPROP_HOME", home)
            assert expand_variables("${DYNAPROP_HOME:-y}/data") == expected


class TestWhereTheStoreCannotBeAsked:
    def test_no_such_bucket(self, s3):
        nowhere = ObjectPath("s3", ("nobucket", "home"))
        with pytest.raises(UsageError, match="there is no bucket 'nobucket'"):
            nowhere.check()
        cannot = r"nobucket/home/a cannot be written: .*bucket does not exist"
        with pytest.raises(DynapropError, match=cannot), writing(nowhere / "a"):
            publish_json(nowhere / "a", 1)
        s3.home.check()  # nothing is in it yet

    def test_no_credentials(self, s3, reconnect, monkeypatch, tmp_path):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))  # nor in a file
        reconnect()
        with pytest.raises(StoreUnavailable, match="the store refuses: Unable to locate credentials"):
            s3.home.check()

    def test_nobody_there(self, s3, reconnect, monkeypatch):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:9")
        reconnect()
        with pytest.raises(StoreUnavailable, match="does not answer") as error:
            s3.home.check()
        assert SECRET not in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_signed_request_is_shown_without_its_signature(self):
        shown = pytest.raises(StoreUnavailable, match="no answer of https://host/c/a within 5 s")
        with shown as error, reaching(ObjectPath("az", ("c", "a"))):
            raise RuntimeError(f"no answer of https://user:{SECRET}@host/c/a?sig={SECRET} within 5 s")
        assert SECRET not in str(error.value)

    def test_that_is_never_taken_for_absence_or_damage(self, s3):
        s3.disturb = lambda _method, _path: "refuse"
        path = s3.home / "a.parquet"
        for ask in (
            path.exists,
            path.is_dir,
            path.stat,
            path.read_bytes,
            lambda: list(path.iterdir()),
            lambda: list(path.glob("*/x")),
            path.unlink,
            path.remove_all,
            lambda: read_parquet(path, required=[]),
        ):
            with pytest.raises(StoreUnavailable, match=r"^s3://features/home"):
                ask()
