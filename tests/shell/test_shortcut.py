"""The shortcut finds what the matcher would have found, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug import exceptions
from werkzeug.routing import Map, Rule

from dynamo.api.shortcut import Shortcut
from dynamo.api.site import Rest

RULES = [
    ("/v1/buckets", ["GET"]),
    ("/v1/buckets/<bucket>", ["PUT", "GET"]),
    ("/v1/buckets/<bucket>/objects", ["GET"]),
    ("/v1/buckets/<bucket>/objects/<rest:key>", ["GET"]),
    ("/v1/buckets/<b>/objects/<rest:k>", ["PUT"]),
    ("/file/<bucket>/<rest:key>", ["GET"]),
    ("/<bucket>/<rest:key>", ["GET"]),
    ("/ring/<bucket>/<rest:key>", ["GET"]),
    ("/ring/plan", ["GET"]),
    ("/ring/plan/<rest:key>", ["GET"]),
]
PATHS = st.lists(
    st.sampled_from(
        ["v1", "buckets", "objects", "file", "ring", "plan", "", "a", "%2F", "..", "a\nb", "é"]
    ),
    max_size=7,
).map(lambda parts: "/" + "/".join(parts))


def make_map() -> Map:
    return Map(
        [Rule(text, methods=methods, endpoint=text) for text, methods in RULES],
        strict_slashes=False,
        merge_slashes=False,
        converters={"rest": Rest},
    )


@given(PATHS, st.sampled_from(["GET", "HEAD", "PUT", "POST"]))
def test_the_shortcut_agrees_with_the_matcher(path: str, method: str) -> None:
    routes = make_map()
    found = Shortcut(routes.iter_rules()).find(method, path)
    if found is not None:
        try:
            expected = routes.bind("node", "").match(path, method, return_rule=True)
        except exceptions.HTTPException:
            expected = None
        assert found == expected


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("/v1/buckets/b/objects/k", "/v1/buckets/<bucket>/objects/<rest:key>"),
        ("/v1/buckets/b/objects/", "/v1/buckets/<bucket>/objects/<rest:key>"),
        ("/file/b/a//b/", "/file/<bucket>/<rest:key>"),
        ("/ring/plan/x", "/ring/plan/<rest:key>"),
        ("/ring/plan", "/ring/plan"),
        ("/v1/buckets", "/v1/buckets"),
        ("/v1/buckets/", None),
        ("/ring/b/x", None),
        ("/other/x", None),
        ("/v1/buckets/b", None),
        ("//file/b/x", None),
    ],
)
def test_what_is_found(path: str, rule: str | None) -> None:
    """A rule that another one may beat is left to the matcher."""
    found = Shortcut(make_map().iter_rules()).find("GET", path)
    assert (found[0].rule if found else None) == rule
