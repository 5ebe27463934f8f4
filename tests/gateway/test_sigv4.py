"""`sign` makes the signatures of AWS's published test suite, and those that Bedrock wants."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from penstock.gateway.sigv4 import AwsKey, sign

# Facts of the aws-sig-v4-test-suite: the same key and time in each of its cases.
KEY = AwsKey(
    access_key_id="AKIDEXAMPLE",
    secret_access_key="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    region="us-east-1",
    service="service",
)
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
HOST = {"Host": "example.amazonaws.com"}
FORM = b"Param1=value1"
FORM_HASH = "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e"
FORM_HEADERS = {**HOST, "Content-Length": "13", "X-Amz-Content-Sha256": FORM_HASH}
PLAIN = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

CASES = {
    "get-vanilla": (
        ("GET", "/", "", HOST, b""),
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    "get-vanilla-query-order-key-case": (
        ("GET", "/", "Param2=value2&Param1=value1", HOST, b""),
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    "get-vanilla-query-unreserved": (
        ("GET", "/", f"{PLAIN}={PLAIN}", HOST, b""),
        "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
    ),
    "get-vanilla-utf8-query": (
        ("GET", "/", "ሴ=bar", HOST, b""),
        "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
    ),
    "get-header-value-trim": (
        ("GET", "/", "", {**HOST, "My-Header1": " value1", "My-Header2": ' "a   b   c"'}, b""),
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    "get-unreserved": (
        ("GET", f"/{PLAIN}", "", HOST, b""),
        "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
    ),
    "get-utf8": (
        ("GET", "/ሴ", "", HOST, b""),
        "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
    ),
    "get-space-unnormalized": (
        ("GET", "/example space/", "", HOST, b""),
        "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
    ),
    "post-vanilla-query": (
        ("POST", "/", "Param1=value1", HOST, b""),
        "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
    ),
    "post-header-key-sort": (
        ("POST", "/", "", {**HOST, "My-Header1": "value1"}, b""),
        "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
    ),
    "post-x-www-form-urlencoded": (
        (
            *("POST", "/", ""),
            {**FORM_HEADERS, "Content-Type": "application/x-www-form-urlencoded"},
            FORM,
        ),
        "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
    ),
    "post-x-www-form-urlencoded-parameters": (
        (
            *("POST", "/", ""),
            {**FORM_HEADERS, "Content-Type": "application/x-www-form-urlencoded; charset=utf-8"},
            FORM,
        ),
        "328d1b9eaadca9f5818ef05e8392801e091653bafec24fcab71e7344e7f51422",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_published_suite_s_signatures_are_made(case: str) -> None:
    request, signature = CASES[case]
    added = sign(KEY, *request, NOW)
    assert added["X-Amz-Date"] == "20150830T123600Z"
    assert added["Authorization"].endswith(f", Signature={signature}")


def test_the_header_names_the_key_its_scope_and_what_is_signed() -> None:
    added = sign(KEY, "GET", "/", "", HOST, b"", NOW)
    assert added["Authorization"].startswith(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, "
    )


def test_the_time_s_zone_changes_nothing() -> None:
    there = NOW.astimezone(timezone(timedelta(hours=9)))
    assert sign(KEY, "GET", "/", "", HOST, b"", there) == sign(KEY, "GET", "/", "", HOST, b"", NOW)


def test_a_request_to_bedrock_is_signed_as_aws_s_own_library_signs_it() -> None:
    """A fact from botocore 1.44: the path it signs is `/model/anthropic.claude-v2%253A1/…`."""
    key = replace(KEY, service="bedrock", session_token="tok/en+")
    headers = {
        "Host": "bedrock-runtime.us-east-1.amazonaws.com",
        "Content-Type": "application/json",
    }
    path = "/model/anthropic.claude-v2%3A1/converse-stream"
    added = sign(key, "POST", path, "", headers, b"{}", NOW)
    assert added["X-Amz-Security-Token"] == "tok/en+"
    assert added["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/bedrock/aws4_request, "
        "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, "
        "Signature=6b4ecfae15674a72de89d6b18ca3cb3197cfc6d13f1320a65f1d1f080f234ae0"
    )


def test_no_secret_is_in_a_key_s_repr() -> None:
    text = repr(replace(KEY, session_token="a-token"))
    assert "a-token" not in text
    assert KEY.secret_access_key not in text
