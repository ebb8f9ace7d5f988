"""Where an S3 store is, and its credentials: one reading of URI and environment for every client.

    s3://BUCKET/PREFIX?endpoint_override=HOST:PORT&scheme=http&region=REGION

What the URI does not say comes from AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_REGION or
AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, then from the AWS
credentials file; what that does not say either, each client looks for itself (roles of machines and pods).
"""

import configparser
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pyarrow import fs

OPTIONS = ("endpoint_override", "region", "scheme")
CONNECT_S = 5.0
ANSWER_S = 30.0
QUIET_S = 10.0  # without a byte, for pyarrow's client
TRIES = 5  # of pyarrow's client, with a growing pause between them

_URI = re.compile(
    r"s3://(?:(?P<key>[^\s:@/?]+)(?::(?P<secret>[^\s:@/?]+))?@)?"
    r"(?P<bucket>[\w.-]+)(?P<prefix>(?:/[^\s?#]*)?)(?:\?(?P<query>[^\s#]*))?"
)


@dataclass(frozen=True)
class S3Address:
    """A prefix of a bucket and how to get there; plain data.

    Attributes:
        bucket: The bucket.
        prefix: The path in it, without slashes around it; may be empty.
        endpoint: The server's address with its scheme; empty for Amazon's own.
        region: Its region; empty where only Amazon can tell.
        key: Access key, empty where each client looks for one itself.
        secret: Its secret.
        token: The session's token, where the key is a passing one.
    """

    bucket: str
    prefix: str
    endpoint: str = ""
    region: str = ""
    key: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


def read_address(uri: str, environment: Mapping[str, str] | None = None) -> S3Address:
    """What a URI, s3://bucket/prefix with perhaps `key:secret@` and a query, and the environment say.

    Raises:
        ValueError: The URI cannot be understood. The message holds nothing of it.
    """
    environment = os.environ if environment is None else environment
    match = _URI.fullmatch(uri)
    if match is None:
        raise ValueError(
            f"{_find_fault(uri)}; write it as s3://BUCKET/PREFIX, with '/', ':' and '@' in a key or its "
            "secret as %2F, %3A and %40"
        )
    prefix = unquote(match["prefix"]).strip("/")
    if prefix and any(part in ("", ".", "..") for part in prefix.split("/")):
        raise ValueError("a part of its path is empty, '.' or '..'")
    options = dict(parse_qsl(match["query"] or "", keep_blank_values=True))
    if unknown := sorted(options.keys() - set(OPTIONS)):
        raise ValueError(f"unknown option {unknown[0]!r} after '?'; there are {', '.join(OPTIONS)}")
    endpoint = _endpoint(options, environment)
    region = options.get("region") or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if match["key"]:
        key, secret, token = unquote(match["key"]), unquote(match["secret"] or ""), ""
    else:
        key, secret, token = _credentials(environment)
    return S3Address(
        bucket=match["bucket"],
        prefix=prefix,
        endpoint=endpoint,
        region=region or ("us-east-1" if endpoint else ""),
        key=key,
        secret=secret,
        token=token,
    )


def _find_fault(uri: str) -> str:
    """Why a URI cannot be understood; the character, where it cannot be one of a secret."""
    place = uri.removeprefix("s3://").partition("?")[0]
    bucket, _, prefix = place.partition("/")
    if "@" in uri:
        return "it cannot be understood"
    if not bucket:
        return "it names no bucket"
    if odd := re.search(r"[^\w.-]", bucket):
        return f"{odd[0]!r} cannot be in the name of a bucket"
    if odd := re.search(r"[\s#]", prefix):
        name = "a space" if odd[0] == " " else repr(odd[0])
        return f"{name} in the prefix is written {quote(odd[0])}"
    return "it cannot be understood"


def _endpoint(options: Mapping[str, str], environment: Mapping[str, str]) -> str:
    named = options.get("endpoint_override")
    if named and "://" not in named:
        named = f"{options.get('scheme', 'https')}://{named}"
    origin = "endpoint_override" if named else "AWS_ENDPOINT_URL"
    named = named or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
    if not named:
        return ""
    try:
        parts = urlsplit(named)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        right = right and parts.username is None and not parts.path.strip("/") and not parts.query
    except ValueError:
        right = False
    if not right:
        raise ValueError(f"{origin} names no server; it must be an address like http://HOST:PORT")
    return f"{parts.scheme}://{parts.netloc}"


def _credentials(environment: Mapping[str, str]) -> tuple[str, str, str]:
    """Key, secret and token; empty where neither the environment nor the credentials file has any."""
    if key := environment.get("AWS_ACCESS_KEY_ID"):
        secret = environment.get("AWS_SECRET_ACCESS_KEY", "")
        return key, secret, environment.get("AWS_SESSION_TOKEN", "")
    named = environment.get("AWS_SHARED_CREDENTIALS_FILE")
    profiles = configparser.RawConfigParser()
    try:
        profiles.read(Path(named) if named else Path.home() / ".aws" / "credentials")
    except (configparser.Error, UnicodeDecodeError, RuntimeError):
        return "", "", ""
    profile = environment.get("AWS_PROFILE", "default")
    if not profiles.has_section(profile):
        return "", "", ""
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    key, secret, token = (profiles.get(profile, name, fallback="") for name in names)
    return key, secret, token


def connect(address: S3Address) -> fs.S3FileSystem:
    """Pyarrow's client for an address.

    Raises:
        OSError: Its region cannot be found out.
    """
    scheme, _, host = address.endpoint.partition("://")
    if host:
        # Amazon's library sends checksums in a form that older servers refuse: Ceph 16 misses a length.
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "WHEN_REQUIRED")
    return fs.S3FileSystem(
        access_key=address.key or None,
        secret_key=address.secret or None,
        session_token=address.token or None,
        region=address.region or fs.resolve_s3_region(address.bucket),
        scheme=scheme or None,
        endpoint_override=host or None,
        connect_timeout=CONNECT_S,
        request_timeout=QUIET_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=TRIES),
        allow_delayed_open=True,  # a small file is one request then, not three
    )


def connect_uri(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of any URI that pyarrow.fs understands, and the path in it.

    Raises:
        OSError, ValueError, pyarrow.ArrowException, ImportError: It cannot be understood or reached. The
            message may hold what is secret in the URI.
    """
    if not uri.startswith("s3://"):
        filesystem, path = fs.FileSystem.from_uri(uri)
        return filesystem, path.rstrip("/")
    address = read_address(uri)
    return connect(address), f"{address.bucket}/{address.prefix}".rstrip("/")
