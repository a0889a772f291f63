"""A media type that schemathesis does not know: bytes as they are."""

import schemathesis

schemathesis.serializer.alias("application/toml", "application/octet-stream")
