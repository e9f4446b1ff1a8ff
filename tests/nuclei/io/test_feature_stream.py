"""GeoJSON is read as `json` reads it, in pieces of any size."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hemalum.errors import HemalumError
from hemalum.nuclei.io import feature_stream, read_features

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
FEATURES = st.lists(st.dictionaries(st.text() | st.just("features"), VALUES), max_size=6)


@pytest.fixture(params=[1, 3, 7, 64, 8 * 2**20])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(feature_stream, "CHUNK", request.param)
    return int(request.param)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(features=FEATURES, before=st.dictionaries(st.text().filter(lambda key: key != "features"), VALUES, max_size=3),
       after=VALUES, indent=st.sampled_from([None, 2]), plain=st.booleans())  # fmt: skip
def test_features_are_those_that_json_gives(
    features: list[Any],
    before: dict[str, Any],
    after: Any,
    indent: int | None,
    plain: bool,
    chunk: int,
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.geojson"
    document = {**before, "type": "FeatureCollection", "features": features, "after": after}
    path.write_text(json.dumps(document, indent=indent, ensure_ascii=plain), encoding="utf-8", errors="surrogatepass")
    assert list(read_features(path)) == features
    path.write_text(json.dumps(features, indent=indent, ensure_ascii=plain), encoding="utf-8", errors="surrogatepass")
    assert list(read_features(path)) == features


def test_other_forms(chunk: int, tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    feature = {"type": "Feature", "properties": {"features": [1, 2]}}
    path.write_text(json.dumps(feature))
    assert list(read_features(path)) == [feature]
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"x": "features", "features": [feature]}).encode())
    if chunk >= 3:  # a mark of three bytes is seen in one piece
        assert list(read_features(path)) == [feature]
    path.write_bytes(gzip.compress(json.dumps([feature, feature]).encode()))
    assert list(read_features(path)) == [feature, feature]


@pytest.mark.fault
@pytest.mark.parametrize("size", [8 * 2**20, 5])
def test_every_cut_is_an_error(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_stream, "CHUNK", size)
    path = tmp_path / "a.geojson"
    text = json.dumps({"type": "FeatureCollection", "features": [{"a": "x{[\\"}, {"b": [1, {"c": None}]}], "z": 1})
    for stop in range(len(text)):
        path.write_text(text[:stop])
        with pytest.raises(HemalumError, match=r"not JSON|not GeoJSON"):
            list(read_features(path))
    packed = gzip.compress(text.encode())
    for stop in range(3, len(packed) - 1):
        path.write_bytes(packed[:stop])
        with pytest.raises(HemalumError, match=r"a\.geojson: "):
            list(read_features(path))


@pytest.mark.fault
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[1]", "holds something that is no object"),
        ('["a"]', "holds something that is no object"),
        ("[null]", "holds something that is no object"),
        ("[[]]", "holds something that is no object"),
        ('{"features": [{"a": 01}]}', "not JSON .feature 1"),
        ('{"features": {"a": 1}}', "not GeoJSON"),
        ('{"type": "features"}', "not GeoJSON"),
        ('{"a": {"features": [{"b": 1}]}}', "not GeoJSON"),
        ("\x00\x01", "not JSON"),
        ('[{"a": 1} {"b": 2}]', "not JSON .feature 2: want one comma"),
        ('[{"a": 1},, {"b": 2}]', "not JSON .feature 2: want one comma"),
        ('[{"a": 1}\u00a0, {"b": 2}]', "holds something that is no object"),
        ('[{"a": 1}, 5, {"b": 2}]', "holds something that is no object"),
        ('[{"a": 1},]', "not JSON .around the features"),
        ('[,{"a": 1}]', "not JSON .around the features"),
        ('[{"a": 1}] x', "not JSON .around the features"),
        ('[{"a": 1}][{"a": 1}]', "not JSON .around the features"),
        ('{"features": [{"a": 1}]} {}', "not JSON .around the features"),
        ('{"features": [{"a": 1}] "b": 2}', "not JSON .around the features"),
        ('{"b": 2 "features": [{"a": 1}]}', "not JSON .around the features"),
        ('{"features": [] "b": 2}', "not JSON .around the features"),
        ('{"features": [{"a": 1}}', "not JSON .around the features|is cut off"),
        ('{"features": [{"a": 1 "b": 2}]}', "not JSON .feature 1"),
    ],
)
def test_what_is_no_geojson(text: str, message: str, chunk: int, tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(text)
    with pytest.raises(HemalumError, match=message):
        list(read_features(path))


@pytest.mark.fault
def test_a_huge_feature_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_stream, "CHUNK", 16)
    monkeypatch.setattr(feature_stream, "MAX_FEATURE", 100)
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps([{"a": 1}, {"a": "x" * 300}]))
    with pytest.raises(HemalumError, match="a feature of more than"):
        list(read_features(path))
    path.write_text(json.dumps({"a": "x" * 300, "features": []}))
    with pytest.raises(HemalumError, match="no list of features in its first"):
        list(read_features(path))


@pytest.mark.fault
def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match=r"none\.geojson: cannot be read"):
        list(read_features(tmp_path / "none.geojson"))


@pytest.mark.fault
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_is_named(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_bytes(json.dumps([{"a": 1}]).encode(encoding))
    with pytest.raises(HemalumError, match="looks like UTF-16 or UTF-32; save it as UTF-8"):
        list(read_features(path))


@pytest.mark.fault
def test_damage_within_a_compressed_file(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson.gz"
    packed = gzip.compress(json.dumps([{"a": list(range(999))}] * 99).encode())
    for at in range(10, len(packed), 7):
        path.write_bytes(packed[:at] + bytes([packed[at] ^ 255]) + packed[at + 1 :])
        with pytest.raises(HemalumError, match=r"a\.geojson\.gz: "):
            list(read_features(path))
