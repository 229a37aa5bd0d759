"""``twistd submitd``."""

from twisted.application.service import ServiceMaker

submitd = ServiceMaker(
    "submitd", "submitd.tap", "Authenticated mail submission service (RFC 6409).", "submitd"
)
