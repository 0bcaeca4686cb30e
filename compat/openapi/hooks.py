"""What schemathesis cannot know of the service: how calls are signed, and what filters and continuation tokens look like."""

import requests
import schemathesis
from hypothesis import strategies as st

from signing import encoded, token

NAME_BYTES_MAX = 1_024
"""Names are bounded in bytes, which JSON Schema cannot say."""


class Signer(requests.auth.AuthBase):
    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {token(request.url)}"
        return request


schemathesis.auth.set_from_requests(Signer())

names = st.from_regex(r"[a-z' ]{0,8}", fullmatch=True).map(lambda name: "'" + name.replace("'", "''") + "'")
comparisons = st.one_of(
    st.builds("{} {} {}".format, st.sampled_from(["userId", "connectionId", "protocol"]), st.sampled_from(["eq", "ne"]), names),
    st.builds("{} in groups".format, names),
    st.builds("length(groups) {} {}".format, st.sampled_from(["gt", "le"]), st.integers(0, 9)),
    st.builds("startswith(userId, {})".format, names),
    st.just("userId eq null"),
)
schemathesis.openapi.format(
    "odata-filter",
    st.one_of(
        st.just(""),
        comparisons,
        st.builds("({}) {} ({})".format, comparisons, st.sampled_from(["and", "or"]), comparisons),
        st.builds("not ({})".format, comparisons),
    ),
)
schemathesis.openapi.format("continuation-token", st.binary(min_size=22, max_size=22).map(encoded))


def fits(value: object) -> bool:
    """Whether every text in a value is short enough to be a name, and would be sent as it is."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass")) <= NAME_BYTES_MAX
    if isinstance(value, dict):
        return all(fits(member) for member in value.values())
    if isinstance(value, list):
        return all(fits(member) for member in value)
    return True


@schemathesis.hook
def filter_path_parameters(context, path_parameters) -> bool:
    return fits(path_parameters)


@schemathesis.hook
def filter_query(context, query) -> bool:
    return fits(query)


@schemathesis.hook
def filter_body(context, body) -> bool:
    return fits(body)


@schemathesis.hook
def filter_case(context, case) -> bool:
    # Settings that are made up fit their description and may still be refused, with all their faults.
    if isinstance(case.body, dict) and isinstance(case.body.get("draft"), dict):
        return False
    # Whatever is sent as text or bytes is text or bytes by then.
    is_json = case.media_type in (None, "application/json")
    return is_json or isinstance(case.body, (str, bytes, schemathesis.core.NotSet))
